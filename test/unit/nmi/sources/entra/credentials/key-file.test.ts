/** A file with a certificate and its key: PEM or PKCS#12, as far as no openssl command is needed. */
import assert from 'node:assert/strict';
import {
  createPrivateKey,
  generateKeyPairSync,
  X509Certificate,
  type KeyObject,
} from 'node:crypto';
import { describe, it } from 'node:test';
import forge from 'node-forge';
import { KeyFileError } from '../../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import { openKeyFile } from '../../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import { proveKeyPair } from '../../../../../../src/nmi/sources/entra/credentials/key-pair.ts';
import {
  childrenOf,
  parseDer,
  textOf,
  toDer,
} from '../../../../../../src/nmi/sources/entra/credentials/pfx.ts';
import { makeCertificate, makeKey, type CertificateFields, type Made } from './key-material.ts';

const dayMs = 24 * 3_600_000;
const now = Date.UTC(2026, 5, 1);
const made = makeKey();
const other = makeKey();
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

function certify(of: Made = made, fields: Partial<CertificateFields> = {}) {
  const validity = { fromWallMs: now - dayMs, toWallMs: now + dayMs };
  return makeCertificate(of, { subject: 'application', ...validity, ...fields });
}

const certificate = certify();
const pem = `${made.keyPem}${certificate.pem}`;

function open(bytes: Buffer | string, ...passwords: readonly string[]) {
  return openKeyFile({ bytes: Buffer.from(bytes), passwords, nowWallMs: now });
}

function refusal(bytes: Buffer | string, ...passwords: readonly string[]): string {
  try {
    open(bytes, ...passwords);
  } catch (error) {
    assert.ok(error instanceof KeyFileError, String(error));
    return `${error.code}: ${error.message}`;
  }
  return 'accepted';
}

function subjectsIn(x5c: string): readonly string[] {
  const blocks = x5c.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
  assert.equal(blocks.join(''), x5c);
  return blocks.map((each) => new X509Certificate(each).subject.replace('CN=', ''));
}

/** Of this key, then with these certificates, as PEM. */
function chainOf(key: Made, ...certificates: readonly { readonly pem: string }[]) {
  return subjectsIn(open(`${key.keyPem}${certificates.map((each) => each.pem).join('')}`).x5c);
}

function block(label: string, bytes: Buffer): string {
  return `-----BEGIN ${label}-----\n${bytes.toString('base64')}\n-----END ${label}-----\n`;
}

function der(key: KeyObject, type: 'pkcs1' | 'pkcs8' = 'pkcs8'): Buffer {
  return key.export({ type, format: 'der' });
}

function locked(type: 'pkcs1' | 'pkcs8'): string {
  return made.key.export({ type, format: 'pem', cipher: 'aes-128-cbc', passphrase: 'p' });
}

const key = forge.pki.privateKeyFromPem(made.keyPem);
const certificates = [forge.pki.certificateFromPem(certificate.pem)];

function pfx(password: string): Buffer {
  const options = { algorithm: '3des', count: 10 } as const;
  const file = forge.pkcs12.toPkcs12Asn1(key, certificates, password, options);
  return Buffer.from(forge.asn1.toDer(file).getBytes(), 'latin1');
}

/** The parts with its key and its certificate stand in it twice. */
function pfxOfTwoKeys(): Buffer {
  const file = forge.pkcs12.toPkcs12Asn1(key, certificates, null, { useMac: false });
  const [octets] = childrenOf(childrenOf(childrenOf(file)[1])[1]);
  assert.ok(octets !== undefined);
  const safe = parseDer(Buffer.from(textOf(octets), 'latin1'));
  const parts = childrenOf(safe);
  octets.value = toDer({ ...safe, value: [...parts, ...parts] }).toString('latin1');
  return toDer(file);
}

const twice = (bytes: Buffer | string): string => Buffer.from(bytes).toString('base64');

describe('a file with a certificate and its key', () => {
  it('is opened as PEM in any order and form, as PKCS#12, or as either in base64', () => {
    const { thumbprintSha256, expiresAtWallMs } = open(pem);
    const { fingerprint256, validToDate } = new X509Certificate(certificate.der);
    assert.equal(thumbprintSha256, fingerprint256.replaceAll(':', '').toLowerCase());
    assert.equal(expiresAtWallMs, validToDate.getTime());
    for (const bytes of [
      pem,
      `Bag Attributes: <none>\n${certificate.pem}more\n${made.keyPem}`,
      pem.replaceAll('\n', '\r\n'),
      pem.replaceAll('CERTIFICATE', 'X509 CERTIFICATE'),
      `${block('RSA PRIVATE KEY', der(made.key, 'pkcs1'))}${certificate.pem}`,
      twice(pem),
      twice(pem).replaceAll(/.{64}/g, '$&\n'),
      pfx('p'),
      twice(pfx('p')),
    ]) {
      const { privateKey, x5c } = open(bytes, 'wrong', 'p');
      assert.ok(createPrivateKey(privateKey).equals(made.key));
      assert.match(privateKey, /^-----BEGIN PRIVATE KEY-----\n/);
      assert.deepEqual(subjectsIn(x5c), ['application']);
    }
  });

  it('is refused with the reason', () => {
    const damagedKey = 'MALFORMED: has a damaged private key';
    const neither = 'MALFORMED: is neither PKCS#12 nor PEM';
    const unended = 'MALFORMED: has a block of PEM without its end';
    const lone = 'UNSUITABLE: is a certificate without its private key';
    const several = 'UNSUITABLE: has several private keys';
    const encrypted = /^UNSUPPORTED: has an encrypted .*: openssl pkcs12 -export /;
    const otherKind = /^UNSUITABLE: has a private key of another kind than RSA/;
    const unpaired = 'UNSUITABLE: has a private key that none of its certificates is for';
    const ofType = (type: string) =>
      `UNSUITABLE: has a private key of type ${type}; Entra ID needs RSA`;
    const sec1 = ec.export({ type: 'sec1', format: 'der' });
    const dsa = generateKeyPairSync('dsa', { modulusLength: 1024, divisorLength: 160 }).privateKey;
    const ed25519 = generateKeyPairSync('ed25519').privateKey;
    const [ed448, x25519] = [generateKeyPairSync('ed448'), generateKeyPairSync('x25519')];
    const pss = generateKeyPairSync('rsa-pss', { modulusLength: 1024 }).privateKey;
    const pkcs8 = (bytes: Buffer) => block('PRIVATE KEY', bytes);
    const pkcs1 = (bytes: Buffer) => block('RSA PRIVATE KEY', bytes);
    const withKey = (...all: readonly string[]) => `${made.keyPem}${all.join('')}`;
    const dated = (fields: Partial<CertificateFields>) => withKey(certify(made, fields).pem);
    // OpenSSL would skip an invalid first line, and use the iteration count of the second key.
    const hidden = `-----BEGIN RSA PRIVATE KEY-----DEK-Info: x\n${locked('pkcs8')}-----END RSA PRIVATE KEY-----\n`;
    const table: readonly (readonly [Buffer | string, string | RegExp, string?])[] = [
      ['', 'MALFORMED: is empty'],
      [pem.padEnd(64 * 1024, 'x'), 'accepted'],
      [pem.padEnd(64 * 1024 + 1, 'x'), 'MALFORMED: is longer than 65536 bytes'],
      ['hello', neither],
      ['!!!!', neither],
      ['-----END X-----', neither],
      [Buffer.from([1, 2, 3]), neither],
      [twice('hello'), neither],
      [twice('hello').replace('=', '=!'), neither],
      [Buffer.from([0x30, 0x03, 1, 2, 3]), /^MALFORMED: /],
      [certificate.der, lone],
      [twice(certificate.der), lone],
      [pfx('p'), /^WRONG_PASSWORD: /, 'wrong'],
      [pfxOfTwoKeys(), several, ''],
      [twice(pfxOfTwoKeys()), several, ''],
      [made.keyPem.repeat(2), several],
      [withKey(other.keyPem, certificate.pem), several],
      ['-----BEGIN CERTIFICATE-----\nAA==\n', unended],
      ['-----BEGIN CERTIFICATE', unended],
      ['-----BEGIN A-----\n-----END B-----\n', unended],
      [made.keyPem.replace('-----END', '-----end'), unended],
      [certificate.pem, 'UNSUITABLE: has no private key'],
      [made.keyPem, 'UNSUITABLE: has no certificate'],
      [withKey(certify(other).pem), unpaired],
      [withKey(block('CERTIFICATE', Buffer.from('x'))), 'MALFORMED: has a damaged certificate'],
      [dated({ fromWallMs: now + 1_000 }), /^UNSUITABLE: .* that is not valid before Jun/],
      [dated({ toWallMs: now }), /^UNSUITABLE: has a certificate that expired on Jun/],
      [dated({ fromWallMs: now, toWallMs: now }), /^UNSUITABLE: .* that expired on Jun/],
      [dated({ fromWallMs: now }), 'accepted'],
      [locked('pkcs1'), encrypted],
      [locked('pkcs8'), encrypted],
      [hidden, encrypted],
      [block('EC PRIVATE KEY', sec1), otherKind],
      [pkcs8(der(ec)), ofType('ec')],
      [pkcs8(der(ed25519)), ofType('ed25519')],
      [pkcs8(der(ed448.privateKey)), ofType('ed448')],
      [pkcs8(der(pss)), ofType('rsa-pss')],
      [pkcs8(der(dsa)), ofType('dsa')],
      [pkcs8(der(x25519.privateKey)), ofType('unknown')],
      [pkcs8(Buffer.alloc(0)), damagedKey],
      [pkcs8(Buffer.alloc(3)), damagedKey],
      [pkcs8(der(made.key).subarray(0, -9)), damagedKey],
      // It includes no data that was not checked.
      [pkcs8(Buffer.concat([der(made.key), Buffer.from('more')])), damagedKey],
      // OpenSSL itself accepts PKCS#8 of any kind here, and works for minutes on a large DSA key.
      ...[made.key, dsa, ec, ed25519].map((each) => [pkcs1(der(each)), damagedKey] as const),
      [pkcs1(sec1), damagedKey],
      [pkcs1(Buffer.from('x')), damagedKey],
    ];
    for (const [file, problem, ...passwords] of table) {
      const told = refusal(file, ...passwords.filter((each) => each !== undefined));
      if (typeof problem === 'string') assert.equal(told, problem);
      else assert.match(told, problem);
    }
  });
});

describe('the chain in a file', () => {
  it('has the issuers, each after the certificate that it issued, and nothing else', () => {
    const middle = makeKey();
    const root = certify(other, { subject: 'root' });
    const intermediate = certify(middle, {
      subject: 'middle',
      issuer: { name: 'root', made: other },
    });
    const leaf = certify(made, { issuer: { name: 'middle', made: middle } });
    assert.deepEqual(chainOf(made, root, intermediate, leaf), ['application', 'middle', 'root']);
    assert.deepEqual(chainOf(made, certify(other, { subject: 'x' }), certificate), ['application']);
  });

  it('has at most ten certificates', () => {
    const keys = Array.from({ length: 12 }, () => makeKey(1024));
    const chain = keys.map((each, index) => {
      const above = keys[index + 1];
      const issuer = above && { issuer: { name: `c${index + 1}`, made: above } };
      return certify(each, { subject: `c${index}`, ...issuer });
    });
    assert.equal(chainOf(keys[0]!, ...chain).length, 10);
  });

  it('begins with the valid certificate of the key, of several with the last to expire', () => {
    const ends = (days: number, fromDays = -1) => {
      const validity = { fromWallMs: now + fromDays * dayMs, toWallMs: now + days * dayMs };
      return certify(made, { subject: `${days}`, ...validity });
    };
    const [soon, late, future] = [ends(1), ends(9), ends(99, 98)];
    assert.equal(chainOf(made, soon, late)[0], '9');
    assert.equal(chainOf(made, late, soon)[0], '9');
    assert.equal(chainOf(made, future, soon)[0], '1');
  });
});

describe('a key that takes long to sign with', () => {
  const { n, e, d, p, q, dp, dq, qi } = made.key.export({ format: 'jwk' });
  const problemOf = (details: object, parts: object = {}, all = [certificate.der]): string => {
    const asymmetricKeyDetails = { modulusLength: 2048, publicExponent: 65_537n, ...details };
    const jwk = { n, e, d, p, q, dp, dq, qi, ...parts };
    const shaped = { asymmetricKeyType: 'rsa', asymmetricKeyDetails, export: () => jwk };
    try {
      proveKeyPair(shaped as never, all, now);
    } catch (error) {
      return error instanceof Error ? error.message : '';
    }
    return 'accepted';
  };
  const shape = 'has an RSA key of an unusual shape';

  it('is refused by its kind, and by its length', () => {
    assert.throws(
      () => proveKeyPair(ec, [certificate.der], now),
      /of type ec; Entra ID needs RSA$/,
    );
    assert.match(problemOf({ modulusLength: 4097 }), /more than 4096 bits$/);
    assert.doesNotMatch(problemOf({ modulusLength: 4096 }, {}, []), /more than 4096 bits$/);
  });

  it('is refused by its exponent and by its parts', () => {
    for (const publicExponent of [0n, 1n, 2n, 2n ** 33n + 1n]) {
      assert.equal(problemOf({ publicExponent }), shape);
    }
    const ofBytes = (length: number) => Buffer.alloc(length, 1).toString('base64url');
    for (const part of ['p', 'q', 'dp', 'dq', 'qi']) {
      for (const value of [ofBytes(130), undefined]) {
        assert.equal(problemOf({}, { [part]: value }), shape, part);
      }
    }
    const none = 'has no certificate';
    assert.equal(problemOf({ publicExponent: 3n }, { p: ofBytes(129) }, []), none);
    assert.equal(problemOf({ publicExponent: 2n ** 33n }, {}, []), none);
  });
});
