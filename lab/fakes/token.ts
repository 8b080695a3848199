/**
 * The tokens of the lab's fakes: in the form of real JWTs, signed with a key that exists only in
 * this process. A claim names the lab identity.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { exchangeIssuer, isExchangeAudience, signExchangeToken } from './exchange-tokens.ts';

/** A fake's data about one managed identity. */
export interface LabIdentity {
  /** The lab's own name for it; `node` for the node's system-assigned one. */
  readonly name: string;
  readonly clientId: string;
  readonly objectId: string;
  readonly resourceId: string;
}

export interface LabClaims {
  readonly aud: string;
  readonly iss: string;
  readonly appid: string;
  readonly oid: string;
  readonly tid: string;
  readonly xms_mirid: string;
  /** Seconds since the epoch. */
  readonly iat: number;
  readonly nbf: number;
  readonly exp: number;
  /** Differs in every token. */
  readonly uti: string;
  /** {@link LabIdentity.name}. */
  readonly lab_identity: string;
  /** Of tokens for token exchange alone. */
  readonly sub?: string;
  readonly lab_by_federation?: boolean;
}

export interface TokenGrant {
  readonly identity: LabIdentity;
  readonly audience: string;
  readonly tenantId: string;
  readonly issuedAtWallMs: number;
  readonly lifetimeMs: number;
  /** Default: the object id. */
  readonly subject?: string;
  /** It was issued for an assertion of another issuer. */
  readonly byFederation?: boolean;
}

/**
 * Real tokens are valid from five minutes before their issue, to allow for clocks that are behind.
 */
const notBeforeSec = 300;

/** Signs with one random key, HS256; tokens for token exchange with a published one. */
export function createTokenSigner(): (grant: TokenGrant) => string {
  const key = randomBytes(32);
  const header = encode({ typ: 'JWT', alg: 'HS256', kid: randomUUID() });
  return (grant) => {
    if (isExchangeAudience(grant.audience)) return signExchangeToken(createExchangeClaims(grant));
    const payload = encode(createClaims(grant));
    const signature = createHmac('sha256', key).update(`${header}.${payload}`).digest('base64url');
    return `${header}.${payload}.${signature}`;
  };
}

function createClaims(grant: TokenGrant): LabClaims {
  const iat = Math.floor(grant.issuedAtWallMs / 1000);
  return {
    aud: grant.audience,
    iss: `https://sts.windows.net/${grant.tenantId}/`,
    iat,
    nbf: iat - notBeforeSec,
    exp: iat + Math.floor(grant.lifetimeMs / 1000),
    appid: grant.identity.clientId,
    oid: grant.identity.objectId,
    tid: grant.tenantId,
    uti: randomBytes(16).toString('base64url'),
    xms_mirid: grant.identity.resourceId,
    lab_identity: grant.identity.name,
  };
}

function createExchangeClaims(grant: TokenGrant): LabClaims {
  const { identity, tenantId, subject = identity.objectId, byFederation = false } = grant;
  const own = { sub: subject, lab_by_federation: byFederation };
  return { ...own, ...createClaims(grant), iss: exchangeIssuer(tenantId), xms_mirid: '' };
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/**
 * The claims of a token that the lab issued. They are not verified: the lab checks which identity's
 * token arrived, not whether it is genuine. Undefined for any other text.
 */
export function decodeLabToken(text: string): LabClaims | undefined {
  const parts = text.split('.');
  const payload = parts[1];
  if (parts.length !== 3 || payload === undefined) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    return isLabClaims(claims) ? claims : undefined;
  } catch {
    return undefined;
  }
}

function isLabClaims(value: unknown): value is LabClaims {
  return (
    typeof value === 'object' &&
    value !== null &&
    'lab_identity' in value &&
    typeof value.lab_identity === 'string'
  );
}

/** The lab identity of the token in an IMDS answer's body, if there is a token. */
export function findTokenIdentity(body: string): string | undefined {
  // A load decodes thousands of bodies; this check keeps error bodies away from the JSON parser.
  if (!body.includes('"access_token"')) return undefined;
  try {
    const answer: unknown = JSON.parse(body);
    if (typeof answer !== 'object' || answer === null || !('access_token' in answer)) {
      return undefined;
    }
    const token = answer.access_token;
    return typeof token === 'string' ? decodeLabToken(token)?.lab_identity : undefined;
  } catch {
    return undefined;
  }
}
