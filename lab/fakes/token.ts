/**
 * The tokens the lab's fakes hand out: real JWTs in form, signed with a key that dies with the
 * process, carrying which lab identity they stand for.
 */
import { createHmac, randomBytes, randomUUID } from 'node:crypto';

/** What a fake knows of one managed identity. */
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
}

export interface TokenGrant {
  readonly identity: LabIdentity;
  readonly audience: string;
  readonly tenantId: string;
  readonly issuedAtWallMs: number;
  readonly lifetimeMs: number;
}

/** Real tokens are valid from five minutes before they were issued, against clocks that lag. */
const notBeforeSec = 300;

/** Signs with one random key, HS256. */
export function createTokenSigner(): (grant: TokenGrant) => string {
  const key = randomBytes(32);
  const header = encode({ typ: 'JWT', alg: 'HS256', kid: randomUUID() });
  return (grant) => {
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

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/**
 * The claims of a token the lab made. Reads, does not verify: the lab asks whose token arrived, not
 * whether it is genuine. Undefined for any other text.
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

/** The lab identity whose token an IMDS answer's body carries, if it carries one. */
export function findTokenIdentity(body: string): string | undefined {
  // A load decodes thousands of bodies; error bodies never get as far as the JSON parser.
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
