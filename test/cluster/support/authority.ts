/** A certificate authority for one test cluster: it lives in memory and signs for a day. */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import forge from 'node-forge';

export interface Issued {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface IssueOptions {
  readonly commonName: string;
  /** What the API server takes as the groups of a client. */
  readonly organizations?: readonly string[];
  readonly ips?: readonly string[];
  readonly dnsNames?: readonly string[];
}

export interface Authority {
  readonly certPem: string;
  /** A certificate for a server and a client at once: etcd's gateway is both. */
  issue(options: IssueOptions): Issued;
}

const lifeMs = 24 * 3_600_000;
/** Clocks are the same on one machine; whole seconds in a certificate are not. */
const backdatedMs = 60_000;

export function createAuthority(commonName: string): Authority {
  const { privateKey, publicKey } = keyPair();
  const subject = [{ name: 'commonName', value: commonName }];
  const root = draft(publicKey, subject, subject);
  root.setExtensions([
    { name: 'basicConstraints', cA: true, critical: true },
    { name: 'keyUsage', keyCertSign: true, digitalSignature: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ]);
  const key = forge.pki.privateKeyFromPem(privateKey);
  root.sign(key, forge.md.sha256.create());
  return {
    certPem: forge.pki.certificateToPem(root),
    issue({ commonName: name, organizations = [], ips = [], dnsNames = [] }) {
      const own = keyPair();
      const certificate = draft(own.publicKey, namesOf(name, organizations), subject);
      certificate.setExtensions([
        { name: 'basicConstraints', cA: false, critical: true },
        { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
        { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
        ...alternativeNames(ips, dnsNames),
      ]);
      certificate.sign(key, forge.md.sha256.create());
      return { certPem: forge.pki.certificateToPem(certificate), keyPem: own.privateKey };
    },
  };
}

/** By OpenSSL: forge takes seconds for a key. PKCS#1, the form that forge reads. */
export function keyPair(): { readonly privateKey: string; readonly publicKey: string } {
  return generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
}

function draft(
  publicKeyPem: string,
  subject: forge.pki.CertificateField[],
  issuer: forge.pki.CertificateField[],
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(publicKeyPem);
  // A first bit of zero keeps the number positive.
  certificate.serialNumber = `01${randomBytes(15).toString('hex')}`;
  certificate.validity.notBefore = new Date(Date.now() - backdatedMs);
  certificate.validity.notAfter = new Date(Date.now() + lifeMs);
  certificate.setSubject(subject);
  certificate.setIssuer(issuer);
  return certificate;
}

/** None at all for a client: Go refuses an empty list. */
function alternativeNames(ips: readonly string[], dnsNames: readonly string[]): object[] {
  const altNames = [
    ...ips.map((ip) => ({ type: 7, ip })),
    ...dnsNames.map((value) => ({ type: 2, value })),
  ];
  return altNames.length === 0 ? [] : [{ name: 'subjectAltName', altNames }];
}

function namesOf(
  commonName: string,
  organizations: readonly string[],
): forge.pki.CertificateField[] {
  return [
    { name: 'commonName', value: commonName },
    ...organizations.map((value) => ({ name: 'organizationName', value })),
  ];
}
