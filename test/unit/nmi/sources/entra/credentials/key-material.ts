/** Certificates of any shape for RSA keys, and key files as the openssl command makes them. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import forge from 'node-forge';

export interface Made {
  readonly key: KeyObject;
  /** PKCS#8. */
  readonly keyPem: string;
}

/** An RSA key. */
export function makeKey(modulusLength = 2048): Made {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength });
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  return { key: createPrivateKey(keyPem), keyPem };
}

export interface CertificateFields {
  readonly subject: string;
  /** Default: its own. */
  readonly issuer?: { readonly name: string; readonly made: Made };
  readonly fromWallMs: number;
  readonly toWallMs: number;
}

export interface MadeCertificate {
  readonly pem: string;
  readonly der: Buffer;
}

let serial = 1;

export function makeCertificate(
  made: Made,
  { subject, issuer, fromWallMs, toWallMs }: CertificateFields,
): MadeCertificate {
  const { pki, asn1 } = forge;
  const certificate = pki.createCertificate();
  const own = pki.privateKeyFromPem(made.keyPem);
  certificate.publicKey = pki.setRsaPublicKey(own.n, own.e);
  serial += 1;
  certificate.serialNumber = serial.toString(16).padStart(4, '0');
  certificate.validity.notBefore = new Date(fromWallMs);
  certificate.validity.notAfter = new Date(toWallMs);
  certificate.setSubject([{ name: 'commonName', value: subject }]);
  certificate.setIssuer([{ name: 'commonName', value: issuer?.name ?? subject }]);
  certificate.setExtensions([{ name: 'basicConstraints', cA: true }]);
  const signing = issuer === undefined ? own : pki.privateKeyFromPem(issuer.made.keyPem);
  certificate.sign(signing, forge.md.sha256.create());
  return {
    pem: pki.certificateToPem(certificate).replaceAll('\r\n', '\n'),
    der: Buffer.from(asn1.toDer(pki.certificateToAsn1(certificate)).getBytes(), 'latin1'),
  };
}

/**
 * The reason why the tests with openssl, or with its old ciphers, cannot run; `false` when they
 * can.
 */
export const withoutOpenssl = lacking('openssl is not installed', 'version');
export const withoutLegacy = lacking(
  'openssl has no legacy provider',
  ...['list', '-providers', '-provider', 'legacy'],
);

function lacking(problem: string, ...args: readonly string[]): string | false {
  return spawnSync('openssl', args).status === 0 ? false : problem;
}

/** The output of an openssl command for this input. */
export function openssl(input: string, ...args: readonly string[]): Buffer {
  return execFileSync('openssl', args, { input, stdio: 'pipe' });
}

/** `openssl pkcs12 -export` of this PEM. */
export function pfxOf(pem: string, ...args: readonly string[]): Buffer {
  return openssl(pem, 'pkcs12', '-export', ...args);
}
