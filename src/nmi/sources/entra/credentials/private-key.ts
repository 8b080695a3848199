/**
 * Private keys from DER. The library works on a key while it reads it (the public half of a DSA key
 * of 12 KB takes it 10 s, of 60 KB twenty minutes), on the thread that answers pods, and whoever
 * writes an identity chooses the key. So what kind it is, is seen before it is opened.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { loadBer, type Ber } from './ber.ts';
import { KeyFileError } from './key-file-error.ts';

const rsaOid = '1.2.840.113549.1.1.1';

const otherKinds: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.1.1.10', 'rsa-pss'],
  ['1.2.840.10040.4.1', 'dsa'],
  ['1.2.840.10045.2.1', 'ec'],
  ['1.3.101.112', 'ed25519'],
  ['1.3.101.113', 'ed448'],
]);

/**
 * @param der PKCS#8.
 * Rejects with `KeyFileError`.
 */
export async function openPkcs8(der: Buffer): Promise<KeyObject> {
  const { oid, plain } = readKind(await loadBer(), der);
  if (oid !== rsaOid) {
    const kind = otherKinds.get(oid) ?? 'unknown';
    throw new KeyFileError('UNSUITABLE', `has a private key of type ${kind}; Entra ID needs RSA`);
  }
  // Written anew: what the library opens is what was looked at.
  return open(plain, 'pkcs8');
}

function readKind(ber: Ber, der: Buffer): { readonly oid: string; readonly plain: Buffer } {
  try {
    const node = ber.parse(der);
    const [, algorithm] = ber.childrenOf(node);
    return { oid: ber.oidOf(ber.childrenOf(algorithm)[0]), plain: ber.encode(node) };
  } catch {
    throw damaged();
  }
}

/**
 * @param der the RSAPrivateKey of PKCS#1, which is of no other kind.
 * Throws `KeyFileError`.
 */
export function openPkcs1(der: Buffer): KeyObject {
  return open(der, 'pkcs1');
}

/** The library's errors are not shown: they are not written to be. */
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
