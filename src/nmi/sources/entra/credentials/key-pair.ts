/** Finds the application's certificate in a file, and checks that Entra ID can accept it. */
import { X509Certificate, type KeyObject } from 'node:crypto';
import { KeyFileError } from './key-file-error.ts';
import type { OpenedCertificate } from './descriptor.ts';

/** As Key Vault. Each fetch signs on the thread that serves pods: 2 ms; 54 ms with 8192 bits. */
const maxKeyBits = 4096;
/** Usually 65537. One of 480,000 bits blocks the thread for 13 s at each signature. */
const maxPublicExponent = 2n ** 33n;
/** Every assertion contains the whole chain. */
const maxChain = 10;

/** @param certificates DER; those outside the key's chain are left out. @throws KeyFileError */
export function proveKeyPair(
  key: KeyObject | undefined,
  certificates: readonly Buffer[],
  nowWallMs: number,
): OpenedCertificate {
  if (key === undefined) throw unsuitable('has no private key');
  if (key.asymmetricKeyType !== 'rsa') {
    throw unsuitable(
      `has a private key of type ${key.asymmetricKeyType ?? 'unknown'}; Entra ID needs RSA`,
    );
  }
  if (Number(key.asymmetricKeyDetails?.modulusLength) > maxKeyBits) {
    throw unsuitable(`has an RSA key of more than ${maxKeyBits} bits`);
  }
  if (!isOfUsualShape(key)) throw unsuitable('has an RSA key of an unusual shape');
  if (certificates.length === 0) throw unsuitable('has no certificate');
  const parsed = certificates.map(parseCertificate).sort(bestFirst(nowWallMs));
  const leaf = parsed.find((certificate) => isOfKey(certificate, key));
  if (leaf === undefined)
    throw unsuitable('has a private key that none of its certificates is for');
  checkValidity(leaf, nowWallMs);
  return {
    thumbprintSha256: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
    privateKey: key.export({ type: 'pkcs8', format: 'pem' }),
    x5c: chainOf(leaf, parsed).map(String).join(''),
    expiresAtWallMs: leaf.validToDate.getTime(),
  };
}

/** The cost of a signature depends on them too, and they need not fit the modulus. */
function isOfUsualShape(key: KeyObject): boolean {
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (publicExponent < 3n || publicExponent > maxPublicExponent) return false;
  const { p, q, dp, dq, qi } = key.export({ format: 'jwk' });
  const halfBytes = Math.ceil(modulusLength / 16) + 1;
  return [p, q, dp, dq, qi].every(
    (part) => part !== undefined && Buffer.byteLength(part, 'base64url') <= halfBytes,
  );
}

function parseCertificate(der: Buffer): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw new KeyFileError('MALFORMED', 'has a damaged certificate');
  }
}

/** A certificate with a public key that the library cannot read belongs to another key. */
function isOfKey(certificate: X509Certificate, key: KeyObject): boolean {
  try {
    return certificate.checkPrivateKey(key);
  } catch {
    return false;
  }
}

/** Certificates are renewed with the same key, and issuers with the same name. */
function bestFirst(nowWallMs: number): (one: X509Certificate, other: X509Certificate) => number {
  const rank = (certificate: X509Certificate): number => Number(isValidAt(certificate, nowWallMs));
  return (one, other) =>
    rank(other) - rank(one) || other.validToDate.getTime() - one.validToDate.getTime();
}

function isValidAt({ validFromDate, validToDate }: X509Certificate, wallMs: number): boolean {
  return validFromDate.getTime() <= wallMs && wallMs < validToDate.getTime();
}

function checkValidity(certificate: X509Certificate, nowWallMs: number): void {
  if (isValidAt(certificate, nowWallMs)) return;
  throw unsuitable(
    nowWallMs < certificate.validFromDate.getTime()
      ? `has a certificate that is not valid before ${certificate.validFrom}`
      : `has a certificate that expired on ${certificate.validTo}`,
  );
}

function chainOf(
  leaf: X509Certificate,
  others: readonly X509Certificate[],
): readonly X509Certificate[] {
  const chain = [leaf];
  for (let last = leaf; chain.length < maxChain;) {
    const issuer = others.find((other) => !chain.includes(other) && last.checkIssued(other));
    if (issuer === undefined) break;
    chain.push(issuer);
    last = issuer;
  }
  return chain;
}

function unsuitable(message: string): KeyFileError {
  return new KeyFileError('UNSUITABLE', message);
}
