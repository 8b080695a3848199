import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isPem, readPem } from '../../../../../src/nmi/sources/entra/credentials/pem.ts';
import { makeCertificate, makeKey } from '../forged-certificates.ts';

const made = makeKey();
const certificate = makeCertificate(made, { subject: 'x', fromWallMs: 0, toWallMs: 4e12 });

function exported(type: 'pkcs1' | 'pkcs8', passphrase?: string): string {
  const options =
    passphrase === undefined
      ? { type, format: 'pem' as const }
      : { type, format: 'pem' as const, cipher: 'aes-128-cbc', passphrase };
  return made.key.export(options);
}

function refused(text: string): string {
  try {
    readPem(text);
  } catch (error) {
    return error instanceof Error && 'code' in error
      ? `${String(error.code)}: ${error.message}`
      : '';
  }
  return 'accepted';
}

describe('PEM', () => {
  it('is recognized by its first mark', () => {
    assert.ok(isPem(`text before\n${certificate.pem}`));
    assert.ok(!isPem('MIIB') && !isPem('-----END X-----'));
  });

  it('has its certificates and its one key, in any order', () => {
    const text = `noise\n${certificate.pem}more\n${made.keyPem}${certificate.pem}`;
    const { key, certificates } = readPem(text);
    assert.ok(key?.equals(made.key));
    assert.deepEqual(certificates, [certificate.der, certificate.der]);
    const other = certificate.pem.replaceAll('CERTIFICATE', 'X509 CERTIFICATE');
    assert.deepEqual(readPem(other), { key: undefined, certificates: [certificate.der] });
  });

  it('has its key in either form', () => {
    for (const text of [exported('pkcs1'), exported('pkcs8')]) {
      assert.ok(readPem(text).key?.equals(made.key));
    }
  });

  it('is refused with an encrypted key, with the way to convert it', () => {
    for (const text of [exported('pkcs1', 'p'), exported('pkcs8', 'p')]) {
      assert.match(refused(text), /^UNSUPPORTED: has an encrypted .*: openssl pkcs12 -export /);
    }
  });

  it('is refused with several keys, or one of another kind', () => {
    assert.equal(refused(made.keyPem.repeat(2)), 'UNSUITABLE: has several private keys');
    const ec = '-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n';
    assert.match(refused(ec), /^UNSUITABLE: has a private key of another kind than RSA/);
  });

  it('is refused with a block without its end, or a damaged key', () => {
    for (const cut of [
      '-----BEGIN CERTIFICATE-----\nAA==\n',
      '-----BEGIN CERTIFICATE',
      '-----BEGIN A-----\n-----END B-----\n',
    ]) {
      assert.equal(refused(cut), 'MALFORMED: has a block of PEM without its end');
    }
    const damaged = '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n';
    assert.equal(refused(damaged), 'MALFORMED: has a damaged private key');
  });
});
