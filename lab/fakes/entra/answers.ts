/**
 * The answers of Entra ID's v2 token endpoint to client credentials, as a function of the request
 * and the service's state. Order of the checks:
 *
 * 1. a method other than POST: 900561
 * 2. the tenant: 90002
 * 3. the grant type: 900144, 70003
 * 4. the application: 900144, 700016, 7000112
 * 5. the `resource` field of the v1 endpoint: 901002
 * 6. the scope: 900144, 70011, 1002012; with `fmi_path`, that of token exchange
 * 7. the credential: 7000218 and those of assertions.ts
 * 8. the resource: 500011
 * 9. Conditional Access: 53003
 */
import { stringAt, type JsonRecord } from '../../../src/base/json-value.ts';
import { isExchangeAudience } from '../exchange-tokens.ts';
import type { EntraApplication, EntraDirectory } from './applications.ts';
import {
  verifyForeignAssertion,
  verifyOwnAssertion,
  verifySecret,
  parseAssertion,
  type IssuerKeys,
  type Verdict,
} from './assertions.ts';
import type { EntraCode, EntraDetails } from './errors.ts';

export interface EntraQuestion {
  readonly method: string;
  /** The host and port of the request: part of the audience of a client's own assertion. */
  readonly host: string;
  /** As in the path. */
  readonly tenant: string;
  readonly form: URLSearchParams;
}

export interface EntraFacts {
  readonly directory: EntraDirectory;
  readonly keysOf: IssuerKeys;
  readonly nowWallMs: number;
}

/** How a client tried to authenticate; never the credential itself. */
export type CredentialKind = 'secret' | 'certificate' | 'federated' | 'none';

export interface PresentedCredential {
  readonly kind: CredentialKind;
  /** The algorithm of an assertion. */
  readonly algorithm?: string;
  /** The subject of another issuer's assertion. */
  readonly subject?: string;
}

export type EntraVerdict =
  | { readonly ok: true; readonly application: EntraApplication; readonly audience: string }
  | { readonly ok: false; readonly code: EntraCode; readonly details: EntraDetails };

const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const suffix = '/.default';

export async function answerEntra(
  question: EntraQuestion,
  facts: EntraFacts,
): Promise<EntraVerdict> {
  const { method, tenant: tenantId, form } = question;
  const { directory } = facts;
  const clientId = form.get('client_id') ?? '';
  const scope = form.get('scope') ?? '';
  const common = { tenantId, clientId, scope };
  if (method !== 'POST') return refuse(900561, { method });
  if (!directory.hasTenant(tenantId)) return refuse(90002, common);
  const grantType = form.get('grant_type') ?? '';
  if (grantType === '') return refuse(900144, { parameter: 'grant_type' });
  if (grantType !== 'client_credentials') return refuse(70003, { grantType });
  if (clientId === '') return refuse(900144, { parameter: 'client_id' });
  const application = directory.find(tenantId, clientId);
  if (application === undefined) return refuse(700016, common);
  if (application.disabled) return refuse(7000112, common);
  if (form.has('resource')) return refuse(901002);
  if (scope === '') return refuse(900144, { parameter: 'scope' });
  if (/\s/.test(scope)) return refuse(70011, common);
  if (!scope.endsWith(suffix) || scope === suffix) return refuse(1002012, common);
  const audience = scope.slice(0, -suffix.length);
  if (form.has('fmi_path') && !isExchangeAudience(audience)) return refuse(70011, common);
  const credential = await verifyCredential(question, application, facts);
  if (!credential.ok) return refuse(credential.code, { ...common, ...credential.details });
  if (isUnknownResource(audience)) return refuse(500011, { ...common, resource: audience });
  if (application.blockedByPolicy) return refuse(53003, common);
  return { ok: true, application, audience };
}

/** The credential in the request, before it is verified. */
export function readCredential(form: URLSearchParams): PresentedCredential {
  const text = form.get('client_assertion') ?? '';
  if (text === '') return { kind: form.has('client_secret') ? 'secret' : 'none' };
  const assertion = parseAssertion(text);
  const algorithm = stringAt(assertion?.header, 'alg');
  if (isOwn(assertion?.claims, form.get('client_id') ?? '')) {
    return { kind: 'certificate', algorithm };
  }
  return { kind: 'federated', algorithm, subject: stringAt(assertion?.claims, 'sub') };
}

async function verifyCredential(
  { host, tenant, form }: EntraQuestion,
  application: EntraApplication,
  { keysOf, nowWallMs }: EntraFacts,
): Promise<Verdict> {
  const text = form.get('client_assertion') ?? '';
  const secret = form.get('client_secret') ?? '';
  if (text === '' && secret === '') return refuse(7000218);
  if (text === '') return verifySecret(secret, application, nowWallMs);
  if (form.get('client_assertion_type') !== assertionType) {
    return refuse(900144, { parameter: 'client_assertion_type' });
  }
  const assertion = parseAssertion(text);
  if (assertion === undefined) return refuse(50027);
  if (!isOwn(assertion.claims, application.clientId)) {
    return verifyForeignAssertion(assertion, application, keysOf, nowWallMs);
  }
  const endpoint = `https://${host}/${tenant}/oauth2/v2.0/token`;
  return verifyOwnAssertion(assertion, application, endpoint, nowWallMs);
}

/** Applications name themselves as issuer; any other issuer means a federated token. */
function isOwn(claims: JsonRecord | undefined, clientId: string): boolean {
  return stringAt(claims, 'iss').toLowerCase() === clientId.toLowerCase();
}

/** Hosts under `.invalid` are reserved (RFC 2606); every other resource exists. */
function isUnknownResource(resource: string): boolean {
  return /^[a-z]+:\/\/(?:[^/]*\.)?invalid(?::\d+)?(?:\/|$)/i.test(resource);
}

function refuse(code: EntraCode, details: EntraDetails = {}): Extract<EntraVerdict, { ok: false }> {
  return { ok: false, code, details };
}
