/**
 * Client assertions, checked as in Entra ID: signatures are really verified, against an
 * application's certificates or another issuer's published keys.
 */
import { constants, createPublicKey, verify, X509Certificate, type KeyObject } from 'node:crypto';
import { parseRecord, stringAt, type JsonRecord } from '../../../src/base/json-value.ts';
import {
  agentSubject,
  exchangeAudience,
  exchangeIssuer,
  isExchangeIssuer,
} from '../exchange-tokens.ts';
import type { EntraApplication, EntraSecret } from './applications.ts';
import type { EntraCode, EntraDetails } from './errors.ts';

export interface Assertion {
  readonly header: JsonRecord;
  readonly claims: JsonRecord;
  readonly signed: Buffer;
  readonly signature: Buffer;
}

export type Verdict =
  | { readonly ok: true }
  | { readonly ok: false; readonly code: EntraCode; readonly details: EntraDetails };

/** A JSON Web Key as an issuer publishes it; only RSA keys are supported here. */
export interface PublishedKey {
  readonly kty: string;
  readonly kid?: string;
  readonly n?: string;
  readonly e?: string;
}

/**
 * The keys that an issuer publishes at this moment.
 * @throws when they cannot be read.
 */
export type IssuerKeys = (issuer: string) => Promise<readonly PublishedKey[]>;

/** Entra ID's tolerance for clock skew. */
const skewSec = 300;

/** Undefined for anything but a JWT. */
export function parseAssertion(text: string): Assertion | undefined {
  const [header = '', payload = '', signature = '', ...rest] = text.split('.');
  const parsedHeader = parseRecord(Buffer.from(header, 'base64url').toString());
  const claims = parseRecord(Buffer.from(payload, 'base64url').toString());
  if (parsedHeader === undefined || claims === undefined || rest.length > 0) return undefined;
  return {
    header: parsedHeader,
    claims,
    signed: Buffer.from(`${header}.${payload}`),
    signature: Buffer.from(signature, 'base64url'),
  };
}

export function verifySecret(
  value: string,
  { secrets }: { readonly secrets: readonly EntraSecret[] },
  nowWallMs: number,
): Verdict {
  const known = secrets.find((secret) => secret.value === value);
  if (known === undefined) return refuse(7000215);
  return (known.expiresAtWallMs ?? Infinity) > nowWallMs ? { ok: true } : refuse(7000222);
}

/**
 * An assertion that the application signed with its own certificate. Checked in this order: issuer
 * and subject, audience, times, the certificate by its thumbprint, the signature.
 */
export function verifyOwnAssertion(
  assertion: Assertion,
  application: EntraApplication,
  endpoint: string,
  nowWallMs: number,
): Verdict {
  const { header, claims } = assertion;
  const clientId = application.clientId.toLowerCase();
  if (['iss', 'sub'].some((claim) => stringAt(claims, claim).toLowerCase() !== clientId)) {
    return refuse(700021);
  }
  if (stringAt(claims, 'aud').toLowerCase() !== endpoint.toLowerCase()) return refuse(700023);
  const timely = verifyTimes(claims, nowWallMs);
  if (!timely.ok) return timely;
  const thumbprint = readThumbprint(header);
  const certificate = application.certificates
    .map((pem) => new X509Certificate(pem))
    .find((candidate) => thumbprintsOf(candidate).includes(thumbprint));
  if (certificate === undefined) {
    return refuse(700027, { reason: 'The key was not found.', thumbprint });
  }
  if (certificate.validToDate.getTime() <= nowWallMs) {
    return refuse(700027, { reason: 'The key used is expired.', thumbprint });
  }
  if (verifies(assertion, certificate.publicKey)) return { ok: true };
  const reason = 'The provided signature value did not match the expected signature value.';
  return refuse(700027, { reason, thumbprint });
}

/**
 * An assertion of another issuer. Checked in this order: a federated credential that matches its
 * issuer, then its subject, then its audience; times; the key; the signature; of a token of Entra
 * ID itself the home of the application, and that it came by no federation.
 */
export async function verifyForeignAssertion(
  assertion: Assertion,
  application: EntraApplication,
  keysOf: IssuerKeys,
  nowWallMs: number,
): Promise<Verdict> {
  const { header, claims } = assertion;
  const issuer = stringAt(claims, 'iss');
  const subject = stringAt(claims, 'sub');
  const audiences = readAudiences(claims);
  const keyId = stringAt(header, 'kid');
  const federatedCredentials = credentialsOf(application);
  const details = { issuer, subject, audience: audiences.join(','), keyId };
  if (federatedCredentials.length === 0) return refuse(70021, details);
  const ofIssuer = federatedCredentials.filter((credential) => credential.issuer === issuer);
  if (ofIssuer.length === 0) return refuse(700211, details);
  const ofSubject = ofIssuer.filter((credential) => credential.subject === subject);
  if (ofSubject.length === 0) return refuse(700213, details);
  if (!ofSubject.some(({ audience }) => audiences.includes(audience))) {
    return refuse(700212, details);
  }
  const timely = verifyTimes(claims, nowWallMs);
  if (!timely.ok) return timely;
  let keys: readonly PublishedKey[];
  try {
    keys = await keysOf(issuer);
  } catch {
    return refuse(90061, details);
  }
  const key = keys.find(({ kty, kid }) => kty === 'RSA' && kid === keyId);
  if (key === undefined) return refuse(7000272, details);
  const publicKey = createPublicKey({ key: { ...key }, format: 'jwk' });
  if (header['alg'] !== 'RS256' || !verifies(assertion, publicKey)) return refuse(50013, details);
  if (application.blueprint !== undefined || !isExchangeIssuer(issuer)) return { ok: true };
  if (issuer !== exchangeIssuer(application.homeTenantId)) return refuse(700236, details);
  return claims['lab_by_federation'] === true ? refuse(700231) : { ok: true };
}

/** An agent identity has no credential but the tokens that its blueprint gets for it. */
function credentialsOf(application: EntraApplication): EntraApplication['federatedCredentials'] {
  const { blueprint, tenantId, clientId, federatedCredentials } = application;
  if (blueprint === undefined) return federatedCredentials;
  const subject = agentSubject(tenantId, blueprint, clientId);
  return [{ issuer: exchangeIssuer(tenantId), subject, audience: exchangeAudience }];
}

function verifyTimes(claims: JsonRecord, nowWallMs: number): Verdict {
  const { nbf, exp } = claims;
  const nowSec = nowWallMs / 1000;
  if (
    typeof exp === 'number' &&
    exp + skewSec > nowSec &&
    (nbf === undefined || (typeof nbf === 'number' && nbf - skewSec <= nowSec))
  ) {
    return { ok: true };
  }
  return refuse(700024, {
    now: new Date(nowWallMs).toISOString(),
    validFrom: renderTime(nbf),
    validTo: renderTime(exp),
  });
}

/** Seconds of a claim; an invalid value must not crash the server. */
function renderTime(value: unknown): string {
  const date = new Date(typeof value === 'number' ? value * 1000 : Number.NaN);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}

/** In hex, from either header field; both base64 alphabets are in use. */
function readThumbprint(header: JsonRecord): string {
  const text = stringAt(header, 'x5t#S256') || stringAt(header, 'x5t');
  return Buffer.from(text, 'base64').toString('hex').toUpperCase();
}

function thumbprintsOf(certificate: X509Certificate): readonly string[] {
  return [certificate.fingerprint256, certificate.fingerprint].map((text) =>
    text.replaceAll(':', ''),
  );
}

function verifies({ header, signed, signature }: Assertion, key: KeyObject): boolean {
  switch (header['alg']) {
    case 'RS256':
      return verify('sha256', signed, key, signature);
    case 'PS256': {
      const padding = constants.RSA_PKCS1_PSS_PADDING;
      const saltLength = constants.RSA_PSS_SALTLEN_DIGEST;
      return verify('sha256', signed, { key, padding, saltLength }, signature);
    }
    default:
      return false;
  }
}

function readAudiences(claims: JsonRecord): readonly string[] {
  const { aud } = claims;
  const all: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  return all.filter((audience) => typeof audience === 'string');
}

function refuse(code: EntraCode, details: EntraDetails = {}): Verdict {
  return { ok: false, code, details };
}
