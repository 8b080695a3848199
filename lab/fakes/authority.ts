/**
 * A certificate authority that exists as long as its process: certificates for the lab's TLS
 * servers, and for applications that authenticate to Entra ID by certificate. Node generates the
 * keys, because its generator does not block; node-forge writes the certificates and is loaded when
 * the first one is needed.
 */
import { generateKeyPair, randomBytes, sign, X509Certificate, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { promisify } from 'node:util';
import type * as nodeForge from 'node-forge';
import { systemClock, type Clock } from '../../src/base/time/clock.ts';

/**
 * What a TLS server needs, PEM: only its own certificate, as clients already trust the authority.
 */
export interface ServerCertificate {
  readonly key: string;
  readonly cert: string;
}

export interface ClientCertificate {
  /** PKCS#8 PEM. */
  readonly keyPem: string;
  /** PEM of the certificate alone. */
  readonly certificatePem: string;
  /** PEM of its issuer; empty when it is self-signed. */
  readonly issuerPem: string;
  /** Uppercase hex, as shown on Entra ID's pages. */
  readonly thumbprintSha1: string;
  readonly thumbprintSha256: string;
}

export interface ClientCertificateOptions {
  /** Default `itself`, as for most applications' certificates. */
  readonly signedBy?: 'itself' | 'authority';
  /** The Kubernetes API uses them as a client's groups. */
  readonly organizations?: readonly string[];
  /** Default: from an hour ago, for 30 days. */
  readonly validity?: { readonly fromWallMs: number; readonly toWallMs: number };
}

export interface LabAuthority {
  /** PEM of the authority's own certificate: the trust anchor of clients. */
  readonly certificatePem: string;
  /** @param names IP addresses and host names; each becomes a subject alternative name. */
  issueServer(names: readonly string[]): Promise<ServerCertificate>;
  issueClient(name: string, options?: ClientCertificateOptions): Promise<ClientCertificate>;
}

type Forge = typeof nodeForge;

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}
type Extension = Readonly<Record<string, unknown>> & { readonly name: string };

interface Issuer {
  readonly name: string;
  readonly key: KeyObject;
  /** Identifier of its public key, as forge's binary string. */
  readonly keyId: string;
}

interface Wish {
  readonly name: string;
  readonly organizations?: readonly string[];
  readonly publicKey: KeyObject;
  readonly validity: { readonly fromWallMs: number; readonly toWallMs: number };
  readonly extensions: readonly Extension[];
}

const hourMs = 3600 * 1000;
const lifetimeMs = 30 * 24 * hourMs;
const authorityName = 'Lab Authority';

/** About 60 ms on two cores: one RSA key, while node-forge loads in parallel. */
export async function createLabAuthority(clock: Clock = systemClock): Promise<LabAuthority> {
  const [forge, pair] = await Promise.all([loadForge(), createKeyPair()]);
  const validity = validFrom(clock);
  const self = issuerOf(forge, authorityName, pair);
  const certificatePem = writeCertificate(forge, self, {
    name: authorityName,
    publicKey: pair.publicKey,
    validity,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  });

  return {
    certificatePem,
    issueServer: async (names) => {
      const { publicKey, privateKey } = await createKeyPair();
      const cert = writeCertificate(forge, self, {
        name: names[0] ?? '',
        publicKey,
        validity: validFrom(clock),
        extensions: [
          { name: 'basicConstraints', cA: false, critical: true },
          { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
          { name: 'extKeyUsage', serverAuth: true },
          { name: 'subjectAltName', altNames: names.map(renderName) },
        ],
      });
      return { key: renderKey(privateKey), cert };
    },
    issueClient: async (name, options = {}) => {
      const own = await createKeyPair();
      const isOwn = options.signedBy !== 'authority';
      const pem = writeCertificate(forge, isOwn ? issuerOf(forge, name, own) : self, {
        name,
        organizations: options.organizations ?? [],
        publicKey: own.publicKey,
        validity: options.validity ?? validFrom(clock),
        extensions: [
          { name: 'basicConstraints', cA: false, critical: true },
          { name: 'keyUsage', digitalSignature: true, critical: true },
          { name: 'extKeyUsage', clientAuth: true },
        ],
      });
      const parsed = new X509Certificate(pem);
      return {
        keyPem: renderKey(own.privateKey),
        certificatePem: pem,
        issuerPem: isOwn ? '' : certificatePem,
        thumbprintSha1: parsed.fingerprint.replaceAll(':', ''),
        thumbprintSha256: parsed.fingerprint256.replaceAll(':', ''),
      };
    },
  };
}

async function loadForge(): Promise<Forge> {
  const { default: forge } = await import('node-forge');
  return forge;
}

function createKeyPair(): Promise<KeyPair> {
  return promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
}

function validFrom(clock: Clock): Wish['validity'] {
  const nowMs = clock.wallMs();
  return { fromWallMs: nowMs - hourMs, toWallMs: nowMs + lifetimeMs };
}

function issuerOf(forge: Forge, name: string, { publicKey, privateKey }: KeyPair): Issuer {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = toForge(forge, publicKey);
  const keyId = certificate.generateSubjectKeyIdentifier().getBytes();
  return { name, key: privateKey, keyId };
}

function writeCertificate(forge: Forge, issuer: Issuer, wish: Wish): string {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = toForge(forge, wish.publicKey);
  // Positive, and unique.
  certificate.serialNumber = `01${randomBytes(15).toString('hex')}`;
  certificate.validity.notBefore = new Date(wish.validity.fromWallMs);
  certificate.validity.notAfter = new Date(wish.validity.toWallMs);
  certificate.setSubject([
    { name: 'commonName', value: wish.name },
    ...(wish.organizations ?? []).map((value) => ({ name: 'organizationName', value })),
  ]);
  certificate.setIssuer([{ name: 'commonName', value: issuer.name }]);
  certificate.setExtensions([
    ...wish.extensions,
    // Strict verifiers, such as Python's, require both key identifiers.
    { name: 'subjectKeyIdentifier' },
    { name: 'authorityKeyIdentifier', keyIdentifier: issuer.keyId },
  ]);
  signCertificate(forge, certificate, issuer.key);
  return forge.pki.certificateToPem(certificate);
}

/** Node signs: forge's own arithmetic takes 45 ms for it and blocks the event loop meanwhile. */
function signCertificate(
  forge: Forge,
  certificate: nodeForge.pki.Certificate,
  key: KeyObject,
): void {
  const algorithm = forge.pki.oids['sha256WithRSAEncryption'] ?? '';
  certificate.signatureOid = algorithm;
  certificate.siginfo.algorithmOid = algorithm;
  certificate.signature = '';
  const [body] = forge.pki.certificateToAsn1(certificate).value;
  if (typeof body !== 'object') throw new TypeError('a certificate without a body');
  certificate.tbsCertificate = body;
  const der = Buffer.from(forge.asn1.toDer(body).getBytes(), 'latin1');
  certificate.signature = sign('sha256', der, key).toString('latin1');
}

function toForge(forge: Forge, key: KeyObject): nodeForge.pki.rsa.PublicKey {
  return forge.pki.publicKeyFromPem(key.export({ type: 'spki', format: 'pem' }));
}

function renderKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' });
}

/** The types of general names are numbers of RFC 5280: 7 for an address, 2 for a host name. */
function renderName(name: string): Readonly<Record<string, unknown>> {
  return isIP(name) === 0 ? { type: 2, value: name } : { type: 7, ip: name };
}
