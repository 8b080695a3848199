import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { proveKeyPair } from '../../../../../src/nmi/sources/entra/credentials/key-pair.ts';
import {
  makeCertificate,
  makeKey,
  type CertificateFields,
  type Made,
} from '../forged-certificates.ts';

const dayMs = 24 * 3_600_000;
const now = Date.UTC(2026, 5, 1);
const made = makeKey();
const other = makeKey();

function certify(of: Made = made, fields: Partial<CertificateFields> = {}): Buffer {
  return makeCertificate(of, {
    subject: 'application',
    fromWallMs: now - dayMs,
    toWallMs: now + dayMs,
    ...fields,
  }).der;
}

function subjectsIn(x5c: string): readonly string[] {
  const blocks = x5c.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
  return blocks.map((block) => new X509Certificate(block).subject.replace('CN=', ''));
}

describe('a key and its certificate', () => {
  it('are a client credential: the key, the thumbprint of the certificate, and its chain', () => {
    const leaf = certify();
    const clientCredential = proveKeyPair(made.key, [certify(other, { subject: 'x' }), leaf], now);
    assert.ok(createPrivateKey(clientCredential.privateKey).equals(made.key));
    const { fingerprint256 } = new X509Certificate(leaf);
    assert.equal(
      clientCredential.thumbprintSha256,
      fingerprint256.replaceAll(':', '').toLowerCase(),
    );
    assert.deepEqual(subjectsIn(clientCredential.x5c), ['application']);
  });

  it('include the issuers, each after the certificate that it issued', () => {
    const root = certify(other, { subject: 'root' });
    const middle = makeKey();
    const issued = { name: 'root', made: other };
    const intermediate = certify(middle, { subject: 'middle', issuer: issued });
    const leaf = certify(made, { issuer: { name: 'middle', made: middle } });
    const { x5c } = proveKeyPair(made.key, [root, intermediate, leaf], now);
    assert.deepEqual(subjectsIn(x5c), ['application', 'middle', 'root']);
  });

  it('include at most ten issuers, and stop when one repeats', () => {
    const makes = Array.from({ length: 12 }, () => makeKey(1024));
    const chain = makes.map((each, index) => {
      const above = makes[index + 1];
      const issuer = above === undefined ? undefined : { name: `c${index + 1}`, made: above };
      return certify(each, { subject: `c${index}`, ...(issuer === undefined ? {} : { issuer }) });
    });
    const [first] = makes;
    assert.ok(first !== undefined);
    assert.equal(subjectsIn(proveKeyPair(first.key, chain, now).x5c).length, 10);
    assert.equal(subjectsIn(proveKeyPair(made.key, [certify()], now).x5c).length, 1);
  });

  it('are the valid pair, and of those the last to expire', () => {
    const ends = (toWallMs: number, fromWallMs = now - dayMs) =>
      certify(made, { subject: `to ${toWallMs}`, fromWallMs, toWallMs });
    const subjectOf = (certificates: readonly Buffer[]) =>
      subjectsIn(proveKeyPair(made.key, certificates, now).x5c)[0];
    const [soon, late] = [ends(now + dayMs), ends(now + 9 * dayMs)];
    assert.equal(subjectOf([soon, late]), `to ${now + 9 * dayMs}`);
    assert.equal(subjectOf([late, soon]), `to ${now + 9 * dayMs}`);
    const future = ends(now + 99 * dayMs, now + 98 * dayMs);
    assert.equal(subjectOf([future, soon]), `to ${now + dayMs}`);
  });
});

describe('an unusable pair of key and certificate', () => {
  const refused = (key: Parameters<typeof proveKeyPair>[0], certificates: readonly Buffer[]) => {
    try {
      proveKeyPair(key, certificates, now);
    } catch (error) {
      return error instanceof Error ? error.message : '';
    }
    return 'accepted';
  };

  it('lacks one of them', () => {
    assert.equal(refused(undefined, [certify()]), 'has no private key');
    assert.equal(refused(made.key, []), 'has no certificate');
  });

  it('has another kind of key, or one too large', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    assert.match(refused(privateKey, [certify()]), /of type ec; Entra ID needs RSA$/);
    const large = { asymmetricKeyType: 'rsa', asymmetricKeyDetails: { modulusLength: 4097 } };
    assert.match(refused(large as never, [certify()]), /more than 4096 bits$/);
  });

  it('has a key of a form that takes long to sign with', () => {
    const { n, e, d, p, q, dp, dq, qi } = made.key.export({ format: 'jwk' });
    const shaped = (publicExponent: bigint, over: Record<string, unknown> = {}) =>
      ({
        asymmetricKeyType: 'rsa',
        asymmetricKeyDetails: { modulusLength: 2048, publicExponent },
        export: () => ({ n, e, d, p, q, dp, dq, qi, ...over }),
      }) as never;
    const shape = /^has an RSA key of an unusual shape$/;
    for (const exponent of [0n, 1n, 2n, 2n ** 33n + 1n]) {
      assert.match(refused(shaped(exponent), [certify()]), shape);
    }
    const long = Buffer.alloc(130, 1).toString('base64url');
    for (const part of ['p', 'q', 'dp', 'dq', 'qi']) {
      assert.match(refused(shaped(65_537n, { [part]: long }), [certify()]), shape, part);
      assert.match(refused(shaped(65_537n, { [part]: undefined }), [certify()]), shape, part);
    }
    const fits = Buffer.alloc(129, 1).toString('base64url');
    assert.doesNotMatch(refused(shaped(3n, { p: fits }), []), shape);
    assert.doesNotMatch(refused(shaped(2n ** 33n), []), shape);
  });

  it('does not match, is damaged, or is outside its validity', () => {
    assert.match(refused(made.key, [certify(other)]), /none of its certificates is for$/);
    assert.equal(refused(made.key, [Buffer.from('x')]), 'has a damaged certificate');
    const early = certify(made, { fromWallMs: now + 1_000 });
    assert.match(refused(made.key, [early]), /^has a certificate that is not valid before Jun/);
    const late = certify(made, { toWallMs: now });
    assert.match(refused(made.key, [late]), /^has a certificate that expired on Jun/);
    const never = certify(made, { fromWallMs: now, toWallMs: now });
    assert.match(refused(made.key, [never]), /^has a certificate that expired on Jun/);
    const from = certify(made, { fromWallMs: now });
    assert.equal(refused(made.key, [from]), 'accepted');
  });
});
