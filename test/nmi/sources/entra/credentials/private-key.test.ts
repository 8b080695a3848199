import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import {
  openPkcs1,
  openPkcs8,
} from '../../../../../src/nmi/sources/entra/credentials/private-key.ts';
import { makeKey } from '../forged-certificates.ts';

const { key } = makeKey();

function der(of: KeyObject, type: 'pkcs1' | 'pkcs8' = 'pkcs8'): Buffer {
  return of.export({ type, format: 'der' });
}

function refused(bytes: Buffer, open = openPkcs8): string {
  try {
    open(bytes);
  } catch (error) {
    return error instanceof Error && 'code' in error
      ? `${String(error.code)}: ${error.message}`
      : '';
  }
  return 'accepted';
}

describe('a private key', () => {
  it('is opened when it is RSA, in either form', () => {
    assert.ok(openPkcs8(der(key)).equals(key));
    assert.ok(openPkcs1(der(key, 'pkcs1')).equals(key));
  });

  it('of another kind is reported and not opened', () => {
    const kinds = [
      ['ec', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey],
      ['ed25519', generateKeyPairSync('ed25519').privateKey],
      ['ed448', generateKeyPairSync('ed448').privateKey],
      ['rsa-pss', generateKeyPairSync('rsa-pss', { modulusLength: 1024 }).privateKey],
      ['unknown', generateKeyPairSync('x25519').privateKey],
    ] as const;
    for (const [kind, other] of kinds) {
      const text = `UNSUITABLE: has a private key of type ${kind}; Entra ID needs RSA`;
      assert.equal(refused(der(other)), text);
    }
  });

  it('of another kind in the form of PKCS#1 is not opened either', () => {
    // OpenSSL itself accepts PKCS#8 of any kind there, and works for minutes on a large DSA key.
    const keys = [
      key,
      generateKeyPairSync('dsa', { modulusLength: 1024, divisorLength: 160 }).privateKey,
      generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
      generateKeyPairSync('ed25519').privateKey,
    ];
    for (const other of keys) {
      assert.equal(refused(der(other), openPkcs1), 'MALFORMED: has a damaged private key');
    }
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const sec1 = privateKey.export({ type: 'sec1', format: 'der' });
    assert.equal(refused(sec1, openPkcs1), 'MALFORMED: has a damaged private key');
  });

  it('that is damaged is refused, with our own message', () => {
    const damaged = 'MALFORMED: has a damaged private key';
    const bytes = der(key);
    assert.equal(refused(Buffer.alloc(0)), damaged);
    assert.equal(refused(bytes.subarray(0, bytes.length - 9)), damaged);
    assert.equal(refused(der(key), openPkcs1), damaged);
    assert.equal(refused(Buffer.from('x'), openPkcs1), damaged);
  });

  it('includes no data that was not checked', () => {
    assert.equal(
      refused(Buffer.concat([der(key), Buffer.from('more')])),
      'MALFORMED: has a damaged private key',
    );
  });
});
