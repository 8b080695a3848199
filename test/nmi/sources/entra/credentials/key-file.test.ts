import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createPrivateKey } from 'node:crypto';
import forge from 'node-forge';
import { openKeyFile } from '../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import {
  childrenOf,
  parseDer,
  textOf,
  toDer,
} from '../../../../../src/nmi/sources/entra/credentials/pfx.ts';
import { makeCertificate, makeKey } from '../forged-certificates.ts';

const now = Date.UTC(2026, 5, 1);
const made = makeKey();
const certificate = makeCertificate(made, { subject: 'x', fromWallMs: 0, toWallMs: 4e12 });
const pem = `${made.keyPem}${certificate.pem}`;

function pfx(password: string): Buffer {
  const { pki, pkcs12, asn1 } = forge;
  const key = pki.privateKeyFromPem(made.keyPem);
  const certificates = [pki.certificateFromPem(certificate.pem)];
  const file = pkcs12.toPkcs12Asn1(key, certificates, password, { algorithm: '3des', count: 10 });
  return Buffer.from(asn1.toDer(file).getBytes(), 'latin1');
}

/** The parts with its key and its certificate stand in it twice. */
function pfxOfTwoKeys(): Buffer {
  const { pki, pkcs12 } = forge;
  const key = pki.privateKeyFromPem(made.keyPem);
  const file = pkcs12.toPkcs12Asn1(key, [pki.certificateFromPem(certificate.pem)], null, {
    useMac: false,
  });
  const [octets] = childrenOf(childrenOf(childrenOf(file)[1])[1]);
  assert.ok(octets !== undefined);
  const safe = parseDer(Buffer.from(textOf(octets), 'latin1'));
  const parts = childrenOf(safe);
  octets.value = toDer({ ...safe, value: [...parts, ...parts] }).toString('latin1');
  return toDer(file);
}

function open(bytes: Buffer | string, ...passwords: readonly string[]) {
  return openKeyFile({ bytes: Buffer.from(bytes), passwords, nowWallMs: now });
}

function refused(bytes: Buffer | string, ...passwords: readonly string[]): string {
  try {
    open(bytes, ...passwords);
  } catch (error) {
    return error instanceof Error && 'code' in error
      ? `${String(error.code)}: ${error.message}`
      : '';
  }
  return 'accepted';
}

const twice = (bytes: Buffer | string): string => Buffer.from(bytes).toString('base64');

describe('a file with a certificate and its key', () => {
  it('is opened as PEM or PKCS#12, or as either in base64', () => {
    const wrapped = twice(pem).replaceAll(/.{64}/g, '$&\n');
    for (const bytes of [pem, pfx('p'), twice(pem), wrapped, twice(pfx('p'))]) {
      const { privateKey } = open(bytes, 'wrong', 'p');
      assert.ok(createPrivateKey(privateKey).equals(made.key));
    }
    assert.match(refused(pfx('p'), 'wrong'), /^WRONG_PASSWORD: /);
  });

  it('is refused in any other format', () => {
    assert.equal(refused(''), 'MALFORMED: is empty');
    const neither = 'MALFORMED: is neither PKCS#12 nor PEM';
    for (const text of ['hello', '!!!!', twice('hello'), twice('hello').replace('=', '=!')]) {
      assert.equal(refused(text), neither, text);
    }
    const lone = 'UNSUITABLE: is a certificate without its private key';
    assert.equal(refused(certificate.der), lone);
    assert.equal(refused(twice(certificate.der)), lone);
    assert.match(refused(Buffer.from([0x30, 0x03, 1, 2, 3])), /^MALFORMED: /);
  });

  it('is refused when it is longer than the limit', () => {
    const padding = (length: number) => `${pem}${'x'.repeat(length - pem.length)}`;
    assert.equal(refused(padding(64 * 1024)), 'accepted');
    assert.equal(refused(padding(64 * 1024 + 1)), 'MALFORMED: is longer than 65536 bytes');
  });

  it('is refused with several keys before any is opened', () => {
    for (const bytes of [made.keyPem.repeat(2), pfxOfTwoKeys(), twice(pfxOfTwoKeys())]) {
      assert.equal(refused(bytes, ''), 'UNSUITABLE: has several private keys');
    }
  });
});
