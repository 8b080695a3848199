/** Certificates in a Secret, and PKCS#12 files as the openssl command writes them. */
import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import forge from 'node-forge';
import { openFakeKube } from '../../../../../../lab/fakes/kube/fake-kube.ts';
import { createSecret } from '../../../../../../lab/fakes/kube/manifests.ts';
import { OwnTime } from '../../../../../../lab/pods/own-time.ts';
import { makeClientCertificate } from '../../../../../../src/nmi/sources/entra/credentials/certificate.ts';
import type {
  ClientCertificate,
  ClientCredentialResult,
} from '../../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  KeyFileError,
  type KeyFileErrorCode,
} from '../../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import type { KeyFileOpener } from '../../../../../../src/nmi/sources/entra/credentials/key-file-opener.ts';
import { openKeyFile } from '../../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import {
  openCredentials,
  type EntraCredential,
} from '../../../../../../src/nmi/sources/entra/credentials/kinds.ts';
import { readPfx } from '../../../../../../src/nmi/sources/entra/credentials/pfx.ts';
import { HandClock } from '../../../../../support/hand-clock.ts';
import { clientOf } from '../../../kube/kube-test-bed.ts';
import {
  makeCertificate,
  makeKey,
  openssl,
  pfxOf,
  withoutLegacy,
  withoutOpenssl,
  type CertificateFields,
  type Made,
} from './key-material.ts';

const { asn1 } = forge;
type Asn1 = forge.asn1.Asn1;

const name = { namespace: 'default', name: 'sp' };
/** Must appear in no message and no client credential. */
const password = 'canary-password-7c1e';
const pfxPassword = ['-passout', `pass:${password}`];
/** `-nomac` also turns off the encryption of the certificates, unless a later option sets it. */
const withoutMac = ['-nomac', '-certpbe', 'AES-256-CBC'];
const unencrypted = ['-certpbe', 'NONE', '-keypbe', 'NONE'];

const dayMs = 24 * 3_600_000;
const [rootKey, intermediateKey, application] = [makeKey(), makeKey(), makeKey()];
const { keyPem } = application;
const root = certify(rootKey, 'root');
const intermediate = certify(intermediateKey, 'intermediate', { name: 'root', made: rootKey });
const leaf = certify(application, 'application', {
  name: 'intermediate',
  made: intermediateKey,
});

function certify(made: Made, subject: string, issuer?: CertificateFields['issuer'], days = 20) {
  const nowWallMs = Date.now();
  const validity = { fromWallMs: nowWallMs - dayMs, toWallMs: nowWallMs + days * dayMs };
  return makeCertificate(made, { subject, ...validity, ...(issuer && { issuer }) }).pem;
}

/** Of the application's key, its certificate and those of its issuers. */
function pfx(...args: readonly string[]): Buffer {
  return pfxOf([keyPem, leaf, root, intermediate].join(''), ...args);
}

function throwsWith(
  code: KeyFileErrorCode,
  bytes: Buffer,
  passwords: readonly string[],
  message = /./,
): void {
  assert.throws(() => readPfx(bytes, passwords), { name: 'KeyFileError', code, message });
}

function derOf(pem: string): Buffer {
  return Buffer.from(forge.pem.decode(pem)[0]!.body, 'latin1');
}

function encode(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

describe('a PKCS#12 file', { skip: withoutOpenssl }, () => {
  /** The key, and all three certificates in any order. */
  function assertWhole(file: Buffer, passwords: readonly string[]): void {
    const { keys, certificates } = readPfx(file, passwords);
    assert.equal(keys.length, 1);
    const key = createPrivateKey({ key: keys[0]!, format: 'der', type: 'pkcs8' });
    assert.ok(key.equals(application.key));
    // To the byte: Entra ID identifies a certificate by its hash.
    const toHex = (bytes: Buffer) => bytes.toString('hex');
    const all = [leaf, intermediate, root].map((pem) => toHex(derOf(pem)));
    assert.deepEqual(certificates.map(toHex).sort(), all.sort());
  }

  const foreign = 'pässwörd € 🔑';
  for (const [title, args, word = 'correct horse'] of [
    ['of AES-256 and SHA-256', ''],
    ['of AES-128, AES-192 and SHA-1', '-certpbe AES-128-CBC -keypbe AES-192-CBC -macalg sha1'],
    ['of 3DES and SHA-512', '-certpbe DES-EDE3-CBC -keypbe DES-EDE3-CBC -macalg sha512'],
    ['with a MAC by SHA-384', '-macalg sha384'],
    ['of old 3DES and SHA-1', '-certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES -macalg sha1'],
    ['of RC2-40, 3DES and SHA-1', '-legacy'],
    ['with an empty password', '', ''],
    ['of old ciphers with an empty password', '-legacy', ''],
    ['with a password that is not ASCII', '', foreign],
    ['of old ciphers with such a password', '-legacy', foreign],
    ['without a MAC', withoutMac.join(' ')],
    ['of old ciphers without a MAC', '-legacy -nomac -certpbe PBE-SHA1-RC2-40'],
    ['without encryption', unencrypted.join(' ')],
    ['without encryption or a MAC', `${unencrypted.join(' ')} -nomac`],
    ['with a MAC of one iteration', '-nomaciter'],
    ['with as many iterations as NSS writes', '-iter 600000 -nomaciter'],
    ['with names in it', '-name friendly -caname other -CSP provider'],
  ] as const) {
    it(`${title} is read`, { skip: args.startsWith('-legacy') && withoutLegacy }, () => {
      const all = args.split(' ').filter((arg) => arg !== '');
      assertWhole(pfx(...all, '-passout', `pass:${word}`), [word]);
    });
  }

  it('is opened by the second password when the first is wrong, or was absent', () => {
    for (const args of [[], withoutMac]) {
      assertWhole(pfx(...args, '-passout', 'pass:pw'), ['pw\n', 'pw']);
    }
    const { pki, pkcs12 } = forge;
    const chain = [leaf, root, intermediate].map((pem) => pki.certificateFromPem(pem));
    const absent = null as unknown as string;
    const file = pkcs12.toPkcs12Asn1(pki.privateKeyFromPem(keyPem), chain, absent);
    assertWhole(encode(file), ['']);
  });

  it('with another password is distinguished from a damaged one', () => {
    const legacy = withoutLegacy === false ? [['-legacy']] : [];
    for (const args of [[], withoutMac, ...legacy]) {
      const bytes = pfx(...args, '-passout', 'pass:pw');
      for (const passwords of [['wrong', 'Pw'], ['']]) {
        throwsWith('WRONG_PASSWORD', bytes, passwords);
      }
      throwsWith('MALFORMED', bytes.subarray(0, -1), ['pw']);
      throwsWith('MALFORMED', Buffer.concat([bytes, Buffer.from('\n')]), ['pw']);
    }
    for (const bytes of [derOf(leaf), Buffer.from([0x30, 0])]) {
      throwsWith('MALFORMED', bytes, ['pw', ''], /^is damaged, or not PKCS#12$/);
    }
    const exchanged = pfx(...unencrypted, '-passout', 'pass:pw');
    exchanged.write('administrat', exchanged.indexOf('application'));
    throwsWith('WRONG_PASSWORD', exchanged, ['pw']);
  });

  const rare = 'with an unknown cipher or MAC names its identifier and the command for another one';
  it(rare, { skip: withoutLegacy }, () => {
    for (const [args, oid] of [
      [['-keypbe', 'PBE-SHA1-RC4-128'], '1.2.840.113549.1.12.1.1'],
      [['-keypbe', 'PBE-SHA1-2DES'], '1.2.840.113549.1.12.1.4'],
      [['-certpbe', 'PBE-SHA1-RC2-128'], '1.2.840.113549.1.12.1.5'],
      [['-macalg', 'sha224'], '2.16.840.1.101.3.4.2.4'],
      [['-macalg', 'md5'], '1.2.840.113549.2.5'],
    ] as const) {
      const file = pfx('-legacy', ...args, '-passout', 'pass:pw');
      const says = `encryption ${oid.replaceAll('.', '\\.')}, .*: openssl pkcs12 -legacy -nodes -in `;
      throwsWith('UNSUPPORTED', file, ['pw'], new RegExp(says));
    }
  });

  it('that contains a secret, a list or nested bags is reported with that', () => {
    const open = pfx(...unencrypted, '-nomac', '-passout', 'pass:');
    for (const bag of [5, 6, 4]) {
      const mark = '\x0c\x0a\x01';
      const changed = open
        .toString('latin1')
        .replace(`${mark}\x03`, mark + String.fromCharCode(bag));
      const says = new RegExp(`more than keys and certificates .*12\\.10\\.1\\.${bag}\\)`);
      throwsWith('UNSUPPORTED', Buffer.from(changed, 'latin1'), [''], says);
    }
  });

  it('that requires too much work is refused before the work', () => {
    for (const args of [
      ['-iter', '1000001', '-nomac'],
      ['-iter', '600000', '-nomac', '-certpbe', 'PBE-SHA1-3DES'],
    ]) {
      const file = pfx(...args, '-passout', 'pass:pw');
      throwsWith('TOO_COSTLY', file, ['pw'], /too many iterations/);
    }
  });

  it('that claims 2^31 iterations, of its MAC or its key, does not open, before any work', () => {
    const claimed = (node: Asn1): Asn1 => {
      const { tagClass, type, constructed, value } = node;
      if (typeof value !== 'string') {
        return asn1.create(tagClass, type, constructed, value.map(claimed));
      }
      // The key and the certificates are DER within such a string.
      if (type === asn1.Type.OCTETSTRING && value.startsWith('0\x82')) {
        const inner = encode(claimed(asn1.fromDer(value))).toString('latin1');
        return asn1.create(tagClass, type, false, inner);
      }
      const claim = type === asn1.Type.INTEGER && value === '\x08\0' ? '\0\x80\0\0\0' : value;
      return asn1.create(tagClass, type, constructed, claim);
    };
    const claim = (...args: readonly string[]): Buffer => {
      const bytes = pfx('-iter', '2048', ...args, '-passout', 'pass:pw');
      return encode(claimed(asn1.fromDer(bytes.toString('latin1'))));
    };
    const startedMs = performance.now();
    throwsWith('TOO_COSTLY', claim(), ['pw'], /too many iterations/);
    for (const scheme of ['aes-256-cbc', 'PBE-SHA1-3DES']) {
      const locked = claim('-nomac', '-certpbe', 'NONE', '-keypbe', scheme);
      assert.throws(() => readPfx(locked, ['pw']), { code: /^(?:TOO_COSTLY|WRONG_PASSWORD)$/ });
    }
    assert.ok(performance.now() - startedMs < 5_000);
  });
});

describe('the identifier of an unknown algorithm', () => {
  const sequence = (...value: Asn1[]): Asn1 =>
    asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SEQUENCE, true, value);

  /** A file that contains only a MAC with this algorithm. */
  function fileWithMac(oid: Buffer): Buffer {
    const { Class, Type } = asn1;
    const algorithm = asn1.create(Class.UNIVERSAL, Type.OID, false, oid.toString('latin1'));
    return encode(sequence(sequence(), sequence(), sequence(sequence(sequence(algorithm)))));
  }

  it('is in the error when it is short, and left out when it is as long as the file', () => {
    const short = Buffer.from(asn1.oidToDer('1.2.3.4').getBytes(), 'latin1');
    throwsWith('UNSUPPORTED', fileWithMac(short), [''], /^uses the encryption 1\.2\.3\.4, which/);
    const long = Buffer.alloc(50_000, 1);
    throwsWith('UNSUPPORTED', fileWithMac(long), [''], /^uses the encryption, which/);
  });
});

describe('a certificate in a Secret', { skip: withoutOpenssl }, () => {
  type Entries = Readonly<Record<string, string | Buffer>>;

  // On this thread, because the test is about the contents, and a thousand threads would take
  // minutes.
  const onThisThread: KeyFileOpener = async (_owner, file) => openKeyFile(file);

  function make(entries: Entries, open = onThisThread): Promise<ClientCredentialResult> {
    const data = Object.entries(entries).map(([key, value]) => [key, Buffer.from(value)] as const);
    return makeClientCertificate(name, new Map(data), Date.now(), open);
  }

  function certificateIn(result: ClientCredentialResult): ClientCertificate {
    assert.ok(result.ok && 'clientCertificate' in result.clientCredential, JSON.stringify(result));
    return result.clientCredential.clientCertificate;
  }

  /** The application's key, and its certificate with these of its issuers. */
  function assertCertificate(result: ClientCredentialResult, issuers: readonly string[]): void {
    const { privateKey, x5c } = certificateIn(result);
    assert.ok(createPrivateKey(privateKey).equals(application.key));
    assert.equal(x5c, [leaf, ...issuers].join(''));
  }

  async function refusal(entries: Entries, open?: KeyFileOpener): Promise<string> {
    const result = await make(entries, open);
    assert.ok(!result.ok);
    assert.deepEqual(
      [result.failure.reason, result.failure.cooldownMs],
      ['credential_invalid', 5_000],
    );
    assert.ok(!result.failure.description.includes(password));
    return result.failure.description;
  }

  it('is read from PKCS#12 with its password, from base64 of it, or from a TLS Secret', async () => {
    const whole = [intermediate, root];
    const file = pfx(...pfxPassword);
    const open = pfx('-passout', 'pass:');
    const packed = `${open.toString('base64').replaceAll(/.{64}/g, '$&\n')}\n`;
    const chain = `${leaf}${intermediate}`.trimEnd();
    for (const [entries, issuers] of [
      [{ certificate: file, password }, whole],
      [{ certificate: file, password: `${password}\n` }, whole],
      [{ certificate: file, password: `${password}\r\n` }, whole],
      [{ certificate: open }, whole],
      [{ certificate: open, password: '' }, whole],
      [{ certificate: open, password: '\n' }, whole],
      // As Key Vault returns it.
      [{ certificate: packed }, whole],
      [{ 'tls.crt': chain, 'tls.key': keyPem, 'ca.crt': root }, [intermediate]],
      [{ certificate: `${keyPem}${leaf}`, 'tls.crt': 'x', 'tls.key': 'x' }, []],
    ] as const) {
      assertCertificate(await make(entries), issuers);
    }
  });

  it('is refused with the reason, on the entry that has it', async () => {
    const file = pfx(...pfxPassword);
    const ofEc = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '-'];
    const curve = openssl('', 'req', '-x509', '-subj', '/CN=curve', ...ofEc).toString();
    const ofCurve = pfxOf(curve, ...pfxPassword);
    const nothing =
      /^Secret default\/sp has neither a key "certificate" nor the keys "tls\.crt" and "tls\.key"; it has no data$/;
    const noWord = /is protected by a password, and there is none under the key "password"/;
    const otherWord = /another password than the one under the key "password"/;
    const notUtf8 = /^key "password" of Secret default\/sp is not UTF-8 text$/;
    const noKey = /^keys "tls\.crt" and "tls\.key" of Secret default\/sp has/;
    for (const [entries, problem] of [
      [{}, nothing],
      [{ cert: 'x', password }, /^Secret default\/sp has .*; it has cert, password$/],
      [{ 'tls.crt': leaf }, /; it has tls\.crt$/],
      [{ 'tls.key': keyPem }, /; it has tls\.key$/],
      [{ certificate: '' }, /^key "certificate" of Secret default\/sp is empty$/],
      [{ certificate: file }, noWord],
      [{ certificate: file, password: '\n' }, noWord],
      [{ certificate: file, password: 'x' }, otherWord],
      [{ certificate: file, password: Buffer.from([0xff]) }, notUtf8],
      [{ certificate: file.subarray(0, 500), password }, /is damaged/],
      [{ certificate: ofCurve, password }, /private key of type ec; Entra ID needs RSA/],
      [{ 'tls.crt': leaf, 'tls.key': leaf }, noKey],
    ] as const) {
      assert.match(await refusal(entries), problem);
    }
  });

  it('is withheld from errors that are not written for a pod, and waits for its turn', async () => {
    const certificate = password;
    const unknown = () => Promise.reject(new TypeError(`cannot read ${password}`));
    const about = 'key "certificate" of Secret default/sp';
    assert.equal(await refusal({ certificate }, unknown), `${about} cannot be read`);
    const problem = 'waits behind too many others';
    const busy = await make({ certificate }, () =>
      Promise.reject(new KeyFileError('BUSY', problem)),
    );
    assert.ok(!busy.ok && busy.failure.reason === 'upstream_down');
    assert.equal(busy.failure.description, `${about} ${problem}`);
  });

  it('never makes the reader reject, hang or leak, however it is mutated', async () => {
    const quick = ['-iter', '1', ...pfxPassword];
    const originals = [
      pfx(...quick),
      pfx('-keypbe', 'PBE-SHA1-3DES', ...quick, '-nomac'),
      pfx('-keypbe', 'NONE', ...quick, '-nomac'),
      Buffer.from(`${keyPem}${leaf}`),
      Buffer.concat([openssl(keyPem, 'pkcs8', '-topk8', ...pfxPassword), Buffer.from(leaf)]),
    ];
    const keyLine = keyPem.split('\n')[5] ?? '';
    assert.equal(keyLine.length, 64);
    const mutation = fc.record({
      at: fc.nat(),
      // Mostly at the structure.
      isEarly: fc.boolean(),
      bytes: fc.uint8Array({ minLength: 0, maxLength: 4 }),
      cut: fc.nat({ max: 4 }),
    });
    const mutated = fc
      .tuple(fc.constantFrom(...originals), fc.array(mutation, { minLength: 1, maxLength: 4 }))
      .map(([original, mutations]) =>
        mutations.reduce((bytes, { at, isEarly, bytes: added, cut }) => {
          const index = at % Math.min(bytes.length, isEarly ? 120 : Infinity);
          const rest = bytes.subarray(Math.min(bytes.length, index + cut));
          return Buffer.concat([bytes.subarray(0, index), added, rest]);
        }, original),
      );
    const random = fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes));
    const sequence = random.map((bytes) => Buffer.concat([Buffer.from([0x30, 0x82]), bytes]));
    await fc.assert(
      fc.asyncProperty(fc.oneof(mutated, random, sequence), async (certificate) => {
        const result = await make({ certificate, password });
        if (result.ok) return;
        const { reason, description } = result.failure;
        assert.equal(reason, 'credential_invalid');
        assert.match(description, /^[\x20-\x7e]{1,300}$/);
        assert.ok(!description.includes(password) && !description.includes(keyLine.slice(0, 20)));
        assert.doesNotMatch(description, /cannot be read$/);
      }),
      { numRuns: 1500 },
    );
  });

  it('with the largest allowed contents is read in a limited time', async () => {
    const most = 64 * 1024;
    const full = (text: string): string => text.repeat(Math.floor(most / text.length));
    for (const certificate of [
      full('-----BEGIN '),
      full('-----BEGIN A-----'),
      full('-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n'),
      full(leaf),
      full(' \n'),
      full('MIIA \n'),
      Buffer.alloc(most, '\x30\x80', 'latin1'),
      Buffer.concat([Buffer.from([0x30, 0x83, 0x00, 0xff, 0xfa]), Buffer.alloc(most - 6, 5)]),
    ]) {
      using time = new OwnTime();
      await refusal({ certificate });
      // Some take 20 ms; the test excludes time that grows with the square of the length.
      assert.ok(time.nowMs() < 2_000, `${time.nowMs()} ms`);
    }
  });

  it('is read from the API server, each time with its expiry', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const clock = new HandClock(Date.now());
    const credential = { kind: 'certificate', secret: name } as const;
    const ends: [EntraCredential, number][] = [];
    using clientCredentials = openCredentials({
      client,
      tokenClient: client,
      clock,
      livePodOf: () => undefined,
      isNeeded: () => true,
      onCertificate: (named, expiresAtWallMs) => ends.push([named, expiresAtWallMs]),
    });
    const renewed = certify(application, 'application', undefined, 40);
    for (const pem of [leaf, renewed]) {
      fake.apply(createSecret({ ...name, data: { certificate: `${keyPem}${pem}` } }));
      const result = await clientCredentials.get(credential, new AbortController().signal);
      assert.equal(certificateIn(result).x5c, pem);
      assert.deepEqual(ends.pop(), [credential, new X509Certificate(pem).validToDate.getTime()]);
      clock.advance(60_000);
    }
  });
});
