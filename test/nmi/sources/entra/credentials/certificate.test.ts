import assert from 'node:assert/strict';
import { createHash, createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import forge from 'node-forge';
import { openFakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import { makeClientCertificate } from '../../../../../src/nmi/sources/entra/credentials/certificate.ts';
import { KeyFileError } from '../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import type { KeyFileOpener } from '../../../../../src/nmi/sources/entra/credentials/key-file-opener.ts';
import { openKeyFile } from '../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import {
  openCredentials,
  type EntraCredential,
} from '../../../../../src/nmi/sources/entra/credentials/kinds.ts';
import type {
  ClientCertificate,
  ClientCredentialResult,
} from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { clientOf } from '../../../kube/kube-test-bed.ts';
import { openKeyFiles, withoutLegacy, withoutOpenssl, type KeyFiles } from '../key-files.ts';
import { OwnTime } from '../../../../../lab/pods/own-time.ts';

const { asn1 } = forge;
const name = { namespace: 'default', name: 'sp' };
const dayMs = 24 * 3_600_000;
/** Must appear in no message and no client credential. */
const password = 'canary-password-7c1e';

type Entries = Readonly<Record<string, string | Buffer>>;

function make(entries: Entries, nowWallMs = Date.now()): Promise<ClientCredentialResult> {
  const data = Object.entries(entries).map(([key, value]) => [key, Buffer.from(value)] as const);
  // On this thread, because the test is about the contents, and a thousand threads would take
  // minutes.
  const open: KeyFileOpener = async (_owner, file) => openKeyFile(file);
  return makeClientCertificate(name, new Map(data), nowWallMs, open);
}

function credentialIn(result: ClientCredentialResult): ClientCertificate {
  assert.ok(result.ok && 'clientCertificate' in result.clientCredential, JSON.stringify(result));
  return result.clientCredential.clientCertificate;
}

async function refusal(entries: Entries, nowWallMs?: number): Promise<string> {
  const result = await make(entries, nowWallMs);
  assert.ok(!result.ok);
  assert.equal(result.failure.reason, 'credential_invalid');
  assert.equal(result.failure.cooldownMs, 5_000);
  assert.match(result.failure.description, /Secret default\/sp/);
  return result.failure.description;
}

function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
  assert.equal(blocks.join(''), pem);
  return blocks.map((block) => new X509Certificate(block));
}

describe('a certificate in a Secret', { skip: withoutOpenssl }, () => {
  let files: KeyFiles;
  before(async () => {
    files = await openKeyFiles();
  });
  after(async () => {
    await files[Symbol.asyncDispose]();
  });

  /** The application's key, its certificate and, after it, its issuers in order. */
  function assertCertificate(
    result: ClientCredentialResult,
    subjects = ['application', 'intermediate', 'root'],
  ) {
    const { privateKey, thumbprintSha256, x5c } = credentialIn(result);
    assert.ok(createPrivateKey(privateKey).equals(files.key));
    assert.match(privateKey, /^-----BEGIN PRIVATE KEY-----\n/);
    const chain = certificatesIn(x5c);
    assert.deepEqual(
      chain.map(({ subject }) => subject.replace('CN=', '')),
      subjects,
    );
    assert.equal(thumbprintSha256, createHash('sha256').update(chain[0]!.raw).digest('hex'));
  }

  const pfxPassword = ['-passout', `pass:${password}`];

  it('is read from PKCS#12, with its chain in order', async () => {
    assertCertificate(await make({ certificate: await files.pfx(...pfxPassword), password }));
  });

  it('is read from old PKCS#12', { skip: withoutLegacy }, async () => {
    assertCertificate(
      await make({ certificate: await files.pfx('-legacy', ...pfxPassword), password }),
    );
  });

  it('needs no password if there is none', async () => {
    const certificate = await files.pfx('-passout', 'pass:');
    for (const entries of [{}, { password: '' }, { password: '\n' }]) {
      assertCertificate(await make({ certificate, ...entries }));
    }
  });

  it('opens with a password that ends with a line break, a real one or that of echo', async () => {
    const certificate = await files.pfx(...pfxPassword);
    assertCertificate(await make({ certificate, password: `${password}\n` }));
    assertCertificate(await make({ certificate, password: `${password}\r\n` }));
  });

  it('is read from PEM, in any order and with any text in between', async () => {
    const { keyPem, leaf, intermediate, root } = files;
    for (const certificate of [
      [keyPem, leaf, intermediate, root],
      [root, 'Bag Attributes: <none>\n', leaf, '\n', intermediate, keyPem],
      [leaf, root, intermediate, keyPem].map((pem) => pem.replaceAll('\n', '\r\n')),
    ]) {
      assertCertificate(await make({ certificate: certificate.join('') }));
    }
  });

  it('is read from PEM with each kind of RSA key', async () => {
    const { keyPem, leaf } = files;
    for (const key of [keyPem, await files.openssl(keyPem, 'rsa', '-traditional')]) {
      assertCertificate(await make({ certificate: `${key}${leaf}` }), ['application']);
    }
  });

  it('is read from the keys of a TLS Secret', async () => {
    const { keyPem, leaf, intermediate, root } = files;
    const chain = `${leaf}${intermediate}`.trimEnd();
    const entries = { 'tls.crt': chain, 'tls.key': keyPem, 'ca.crt': root };
    assertCertificate(await make(entries), ['application', 'intermediate']);
  });

  it('is read from base64 of base64, as Key Vault returns it', async () => {
    const bytes = await files.pfx('-passout', 'pass:');
    const lines = bytes.toString('base64').replaceAll(/.{64}/g, '$&\n');
    assertCertificate(await make({ certificate: `${lines}\n` }));
    const pem = Buffer.from(`${files.keyPem}${files.leaf}`).toString('base64');
    assertCertificate(await make({ certificate: pem }), ['application']);
  });

  it('is the valid one, and of those the last to expire, of several for the same key', async () => {
    const { keyPem } = files;
    const short = await files.selfSigned(5);
    const long = await files.selfSigned(50);
    const thumbprintAt = async (days: number): Promise<string> => {
      const certificate = [short, keyPem, long].join('');
      return credentialIn(await make({ certificate }, Date.now() + days * dayMs)).thumbprintSha256;
    };
    const hashOf = (pem: string): string =>
      new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();
    assert.equal(await thumbprintAt(1), hashOf(long));
    assert.equal(await thumbprintAt(10), hashOf(long));
  });

  it('leaves out certificates outside its chain', async () => {
    const { keyPem, leaf, root } = files;
    const { certificate: other } = await files.ec();
    const result = await make({ certificate: [keyPem, other, root, leaf].join('') });
    assertCertificate(result, ['application']);
  });

  it('is refused before and after its validity, with the date', async () => {
    const certificate = `${files.keyPem}${files.leaf}`;
    const { validFrom, validTo } = new X509Certificate(files.leaf);
    const late = await refusal({ certificate }, Date.now() + 21 * dayMs);
    assert.ok(late.endsWith(`expired on ${validTo}`), late);
    const early = await refusal({ certificate }, Date.now() - dayMs);
    assert.ok(early.endsWith(`not valid before ${validFrom}`), early);
  });

  it('is refused with the reason', async () => {
    const { keyPem, leaf, intermediate } = files;
    const ec = await files.ec();
    const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    const otherPem = other.export({ type: 'pkcs8', format: 'pem' });
    const locked = await files.openssl(keyPem, 'pkcs8', '-topk8', ...pfxPassword);
    const pfx = await files.pfx(...pfxPassword);
    // OpenSSL would skip an invalid first line, and use the iteration count of the second key.
    const hidden = `-----BEGIN RSA PRIVATE KEY-----DEK-Info: x\n${locked}-----END RSA PRIVATE KEY-----\n${leaf}`;
    const table: readonly (readonly [Entries, RegExp])[] = [
      [
        {},
        /has neither a key "certificate" nor the keys "tls\.crt" and "tls\.key"; it has no data/,
      ],
      [{ cert: 'x', password }, /; it has cert, password$/],
      [{ 'tls.crt': leaf }, /; it has tls\.crt$/],
      [{ certificate: '' }, /^key "certificate" of Secret default\/sp is empty$/],
      [{ certificate: 'x'.repeat(65_537) }, /is longer than 65536 bytes/],
      [{ certificate: 'hello' }, /is neither PKCS#12 nor PEM/],
      [{ certificate: Buffer.from([1, 2, 3]) }, /is neither PKCS#12 nor PEM/],
      [
        { certificate: pfx },
        /is protected by a password, and there is none under the key "password"/,
      ],
      [{ certificate: pfx, password: '\n' }, /there is none under the key "password"/],
      [
        { certificate: pfx, password: 'x' },
        /another password than the one under the key "password"/,
      ],
      [{ certificate: pfx, password: Buffer.from([0xff]) }, /key "password" .* is not UTF-8/],
      [{ certificate: pfx.subarray(0, 500), password }, /is damaged/],
      [{ certificate: new X509Certificate(leaf).raw }, /is a certificate without its private key/],
      [{ certificate: leaf }, /has no private key/],
      [{ certificate: keyPem }, /has no certificate/],
      [
        { certificate: `${keyPem}${intermediate}` },
        /private key that none of its certificates is for/,
      ],
      [{ certificate: `${otherPem}${leaf}` }, /private key that none of its certificates is for/],
      [{ certificate: `${keyPem}${otherPem}${leaf}` }, /has several private keys/],
      [
        { certificate: `${ec.keyPem}${ec.certificate}` },
        /private key of type ec; Entra ID needs RSA/,
      ],
      [
        {
          certificate: await files.pfxOf(`${ec.keyPem}${ec.certificate}`, ...pfxPassword),
          password,
        },
        /private key of type ec; Entra ID needs RSA/,
      ],
      [
        { certificate: `${await files.openssl(ec.keyPem, 'ec')}${ec.certificate}` },
        /another kind than RSA/,
      ],
      [{ certificate: `${locked}${leaf}`, password }, /encrypted .* read from PKCS#12 only/],
      [{ certificate: hidden, password }, /encrypted private key/],
      [{ certificate: keyPem.replace('-----END', '-----end') }, /block of PEM without its end/],
      [{ certificate: `${keyPem.replace(/\n.{64}\n/, '\n')}${leaf}` }, /damaged private key/],
      [{ certificate: `${keyPem}${leaf.replace(/\n.{64}\n/, '\n')}` }, /damaged certificate/],
      [{ 'tls.crt': leaf, 'tls.key': otherPem }, /^keys "tls\.crt" and "tls\.key" of Secret/],
    ];
    for (const [entries, pattern] of table) {
      const text = await refusal(entries);
      assert.match(text, pattern);
      assert.ok(!text.includes(password));
    }
  });

  it('with a key too long to sign with is refused', async () => {
    // Not a usable key: only its length is checked, and generating a real one takes minutes.
    const long = '\x7f'.repeat(550);
    const integers = ['\0', long, '\x01\0\x01', long, long, long, long, long, long];
    const { SEQUENCE, INTEGER } = asn1.Type;
    const sequence = asn1.create(
      asn1.Class.UNIVERSAL,
      SEQUENCE,
      true,
      integers.map((value) => asn1.create(asn1.Class.UNIVERSAL, INTEGER, false, value)),
    );
    const keyPem = forge.pem.encode({
      type: 'RSA PRIVATE KEY',
      body: asn1.toDer(sequence).getBytes(),
    });
    const text = await refusal({ certificate: `${keyPem}${files.leaf}` });
    assert.match(text, /an RSA key of more than 4096 bits/);
  });

  it('never makes the reader reject, hang or leak, however it is mutated', async () => {
    const { keyPem, leaf } = files;
    const quick = ['-iter', '1', '-passout', `pass:${password}`];
    const originals = [
      await files.pfx(...quick),
      await files.pfx('-keypbe', 'PBE-SHA1-3DES', ...quick, '-nomac'),
      await files.pfx('-keypbe', 'NONE', ...quick, '-nomac'),
      Buffer.from(`${keyPem}${leaf}`),
      Buffer.from(`${await files.openssl(keyPem, 'pkcs8', '-topk8', ...pfxPassword)}${leaf}`),
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
          return Buffer.concat([
            bytes.subarray(0, index),
            added,
            bytes.subarray(Math.min(bytes.length, index + cut)),
          ]);
        }, original),
      );
    const random = fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes));
    const sequence = random.map((bytes) => Buffer.concat([Buffer.from([0x30, 0x82]), bytes]));
    await fc.assert(
      fc.asyncProperty(fc.oneof(mutated, random, sequence), async (certificate) => {
        const result = await make({ certificate, password });
        if (result.ok) return;
        assert.equal(result.failure.reason, 'credential_invalid');
        assert.match(result.failure.description, /^[\x20-\x7e]{1,300}$/);
        assert.ok(!result.failure.description.includes(password));
        assert.ok(!result.failure.description.includes(keyLine.slice(0, 20)));
        assert.doesNotMatch(result.failure.description, /cannot be read$/);
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
      full(files.leaf),
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

  it('does not expose an error that is not written for a pod', async () => {
    const data = new Map([['certificate', Buffer.from(password)]]);
    const open: KeyFileOpener = () => Promise.reject(new TypeError(`cannot read ${password}`));
    const result = await makeClientCertificate(name, data, Date.now(), open);
    assert.ok(!result.ok);
    assert.equal(
      result.failure.description,
      'key "certificate" of Secret default/sp cannot be read',
    );
  });

  it('that waits behind too many others fails with a transient error', async () => {
    const open: KeyFileOpener = () =>
      Promise.reject(new KeyFileError('BUSY', 'waits behind too many others'));
    const data = new Map([['certificate', Buffer.from('x')]]);
    const result = await makeClientCertificate(name, data, Date.now(), open);
    assert.ok(!result.ok);
    assert.equal(result.failure.reason, 'upstream_down');
    assert.equal(
      result.failure.description,
      'key "certificate" of Secret default/sp waits behind too many others',
    );
  });

  it('is read from the API server, and again after a minute, each time with its expiry', async () => {
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
    const get = (): Promise<ClientCredentialResult> =>
      clientCredentials.get(credential, new AbortController().signal);
    const apply = (bytes: Buffer): void => {
      fake.apply({
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: name,
        data: {
          certificate: bytes.toString('base64'),
          password: Buffer.from(password).toString('base64'),
        },
      });
    };
    apply(await files.pfx(...pfxPassword));
    const [one, other] = await Promise.all([get(), get()]);
    assertCertificate(one);
    assert.equal(one, other);
    const renewed = await files.selfSigned(40);
    apply(await files.pfxOf(`${files.keyPem}${renewed}`, ...pfxPassword));
    assert.equal(await get(), one);
    clock.advance(60_000);
    const next = credentialIn(await get());
    assert.equal(next.x5c, renewed);
    assert.equal(fake.requests.length, 2);
    const validTo = [files.leaf, renewed].map((pem) =>
      new X509Certificate(pem).validToDate.getTime(),
    );
    assert.deepEqual(
      ends,
      validTo.map((atMs) => [credential, atMs]),
    );
  });
});
