/**
 * Private keys from PKCS#8 and PKCS#1. The kind of a key is checked before OpenSSL opens it: that
 * takes 10 s for a DSA key of 12 KB, twenty minutes for 60 KB, no deadline interrupts it, and
 * anyone who writes an identity chooses the key.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import forge from 'node-forge/lib/forge.js';
import { KeyFileError } from './key-file-error.ts';
import { childrenOf, parseDer, textOf, toDer } from './pfx.ts';

const rsaOid = '1.2.840.113549.1.1.1';

const otherKinds: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.1.1.10', 'rsa-pss'],
  ['1.2.840.10040.4.1', 'dsa'],
  ['1.2.840.10045.2.1', 'ec'],
  ['1.3.101.112', 'ed25519'],
  ['1.3.101.113', 'ed448'],
]);

/** @param der PKCS#8. @throws KeyFileError */
export function openPkcs8(der: Buffer): KeyObject {
  const { oid, plain } = readKind(der);
  if (oid !== rsaOid) {
    const kind = otherKinds.get(oid) ?? 'unknown';
    throw new KeyFileError('UNSUITABLE', `has a private key of type ${kind}; Entra ID needs RSA`);
  }
  // Encoded again, so that OpenSSL opens exactly what was checked.
  return open(plain, 'pkcs8');
}

function readKind(der: Buffer): { readonly oid: string; readonly plain: Buffer } {
  try {
    const key = parseDer(der);
    const [oid] = childrenOf(childrenOf(key)[1]);
    return { oid: forge.asn1.derToOid(textOf(oid)), plain: toDer(key) };
  } catch {
    throw damaged();
  }
}

/** @param der as in PKCS#1; OpenSSL would take PKCS#8 of any kind, too. @throws KeyFileError */
export function openPkcs1(der: Buffer): KeyObject {
  return open(readRsa(der), 'pkcs1');
}

/** A version and the eight numbers of a key, and nothing else. */
function readRsa(der: Buffer): Buffer {
  try {
    const key = parseDer(der);
    const parts = childrenOf(key);
    const isPlain = parts.every(({ type }) => type === forge.asn1.Type.INTEGER);
    if (parts.length === 9 && isPlain) return toDer(key);
  } catch {
    // Reported below.
  }
  throw damaged();
}

/** The library's errors are not shown: their texts are not meant for users. */
function open(key: Buffer, type: 'pkcs1' | 'pkcs8'): KeyObject {
  try {
    return createPrivateKey({ key, format: 'der', type });
  } catch {
    throw damaged();
  }
}

function damaged(): KeyFileError {
  return new KeyFileError('MALFORMED', 'has a damaged private key');
}
