/**
 * The answers of the instance metadata service, as a pure function of the request and the service's
 * state. Order of the checks of a token request:
 *
 * 1. a method other than GET: 405
 * 2. `X-Forwarded-For`: refused
 * 3. the `Metadata: true` header, exactly
 * 4. parameters used twice, api-version, resource, more than one selector
 * 5. the identity: named, else system-assigned, else the only user-assigned one
 */
import {
  attestedDocument,
  instanceApiVersions,
  instanceDocument,
  loadBalancerDocument,
  scheduledEventsDocument,
} from './documents.ts';
import type { ImdsTarget } from './target.ts';
import type { LabIdentity } from '../token.ts';

export interface ImdsQuestion {
  readonly method: string;
  readonly target: ImdsTarget;
  /** The header's value, several joined by `, `; undefined without a header. */
  readonly metadata: string | undefined;
  readonly forwardedFor: string | undefined;
}

export interface ImdsFacts {
  readonly tenantId: string;
  readonly systemAssigned: LabIdentity | undefined;
  readonly userAssigned: readonly LabIdentity[];
  readonly token: (identity: LabIdentity, resource: string, freshness: TokenFreshness) => ImdsToken;
}

export type TokenFreshness = 'cached' | 'new';

export interface ImdsToken {
  readonly text: string;
  readonly notBeforeSec: number;
  readonly expiresOnSec: number;
  readonly expiresInSec: number;
}

export interface ImdsAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /** The identity of the token in the body; undefined without a token. */
  readonly identity?: LabIdentity;
  readonly allow?: string;
  readonly retryAfterSec?: number;
}

export const jsonType = 'application/json; charset=utf-8';
export const textType = 'text/plain; charset=utf-8';

const tokenPath = '/metadata/identity/oauth2/token';
const apiVersionPattern = /^\d{4}-\d{2}-\d{2}$/;

export function isTokenPath(path: string): boolean {
  return path === tokenPath;
}

export function answerImds(question: ImdsQuestion, facts: ImdsFacts): ImdsAnswer {
  const { path } = question.target;
  if (isTokenPath(path)) return answerToken(question, facts);
  const category = /^\/metadata\/(versions|instance|attested|scheduledevents|loadbalancer)(\/|$)/;
  const [, name] = category.exec(path) ?? [];
  const isInfo = path === '/metadata/identity/info';
  if (name === undefined && !isInfo) return notFound();
  if (question.method !== 'GET') return methodNotAllowed();
  if (question.forwardedFor !== undefined) {
    return badRequest('X-Forwarded-For header is not allowed');
  }
  if (question.metadata !== 'true') return badRequest('Required metadata header not specified');
  if (name === 'versions') return json({ apiVersions: instanceApiVersions });
  const versionProblem = checkApiVersion(question.target);
  if (versionProblem !== undefined) return versionProblem;
  switch (name) {
    case 'instance':
      return answerInstance(question.target);
    case 'attested':
      return path === '/metadata/attested/document' ? json(attestedDocument) : notFound();
    case 'scheduledevents':
      return json(scheduledEventsDocument);
    case 'loadbalancer':
      return json(loadBalancerDocument);
    default:
      return json({ tenantId: facts.tenantId });
  }
}

function answerToken(question: ImdsQuestion, facts: ImdsFacts): ImdsAnswer {
  if (question.method !== 'GET') return methodNotAllowed();
  if (question.forwardedFor !== undefined) {
    return invalidRequest('X-Forwarded-For header is not allowed');
  }
  if (question.metadata !== 'true') return invalidRequest('Required metadata header not specified');
  const query = new Map(question.target.query);
  if (query.size !== question.target.query.length) {
    return invalidRequest('A query variable is specified more than once');
  }
  const version = query.get('api-version') ?? '';
  if (version === '') return invalidRequest("Required query variable 'api-version' is missing");
  if (!apiVersionPattern.test(version)) return invalidRequest("'api-version' is not valid");
  const resource = query.get('resource') ?? '';
  if (resource === '') return invalidRequest("Required query variable 'resource' is missing");
  const selectors = ['client_id', 'object_id', 'msi_res_id', 'mi_res_id'].flatMap((name) => {
    const value = query.get(name) ?? '';
    return value === '' ? [] : [{ name, value }];
  });
  if (selectors.length > 1) return invalidRequest('More than one identity is specified');
  const selector = selectors[0];
  const chosen =
    selector === undefined
      ? chooseDefault(facts)
      : findIdentity(facts, selector.name, selector.value);
  if (typeof chosen === 'string') return invalidRequest(chosen);
  const freshness = query.get('bypass_cache')?.toLowerCase() === 'true' ? 'new' : 'cached';
  const token = facts.token(chosen, resource, freshness);
  return {
    status: 200,
    contentType: jsonType,
    body: renderToken(token, chosen, resource, selector?.name),
    identity: chosen,
  };
}

/** An identity, or an error description if there is none. */
function chooseDefault(facts: ImdsFacts): LabIdentity | string {
  if (facts.systemAssigned !== undefined) return facts.systemAssigned;
  const [only, second] = facts.userAssigned;
  if (only === undefined) return 'Identity not found';
  if (second === undefined) return only;
  return (
    'Multiple user assigned identities exist, please specify the clientId / resourceId of the ' +
    'identity in the token request'
  );
}

function findIdentity(
  facts: ImdsFacts,
  name: string,
  value: string,
): LabIdentity | 'Identity not found' {
  const wanted = value.toLowerCase();
  const all = [
    ...facts.userAssigned,
    ...(facts.systemAssigned === undefined ? [] : [facts.systemAssigned]),
  ];
  const found = all.find((identity) => {
    if (name === 'client_id') return identity.clientId.toLowerCase() === wanted;
    if (name === 'object_id') return identity.objectId.toLowerCase() === wanted;
    return identity.resourceId.toLowerCase() === wanted;
  });
  return found ?? 'Identity not found';
}

/** Every value is a string, the keys are in alphabetical order: clients that scan rely on both. */
function renderToken(
  token: ImdsToken,
  identity: LabIdentity,
  resource: string,
  selector: string | undefined,
): string {
  return JSON.stringify({
    access_token: token.text,
    client_id: identity.clientId,
    expires_in: String(token.expiresInSec),
    expires_on: String(token.expiresOnSec),
    ext_expires_in: String(token.expiresInSec),
    ...(selector === 'mi_res_id' || selector === 'msi_res_id'
      ? { msi_res_id: identity.resourceId }
      : {}),
    not_before: String(token.notBeforeSec),
    ...(selector === 'object_id' ? { object_id: identity.objectId } : {}),
    resource,
    token_type: 'Bearer',
  });
}

function checkApiVersion(target: ImdsTarget): ImdsAnswer | undefined {
  const version = target.query.find(([name]) => name === 'api-version')?.[1] ?? '';
  if (instanceApiVersions.includes(version)) return undefined;
  const problem =
    version === ''
      ? 'api-version was not specified in the request'
      : 'api-version is invalid or is not supported';
  return {
    status: 400,
    contentType: jsonType,
    body: JSON.stringify({
      error: `Bad request. ${problem}. For more information refer to aka.ms/azureimds`,
      'newest-versions': instanceApiVersions.slice(-3).toReversed(),
    }),
  };
}

/** A node of the document; a leaf only as text, as in the real service. */
function answerInstance(target: ImdsTarget): ImdsAnswer {
  const format = target.query.find(([name]) => name === 'format')?.[1] ?? 'json';
  const segments = target.path.split('/').slice(3);
  let node: unknown = instanceDocument;
  for (const segment of segments) node = childOf(node, segment);
  if (node === undefined) return notFound();
  if (typeof node === 'object') {
    if (format === 'json') return json(node);
    return text(
      Object.entries(node ?? {})
        .map(([key, value]) => (typeof value === 'object' ? `${key}/` : key))
        .join('\n'),
    );
  }
  if (format !== 'text') return badRequest('A leaf of the document needs format=text');
  return typeof node === 'string' ? text(node) : notFound();
}

function childOf(node: unknown, segment: string): unknown {
  if (typeof node !== 'object' || node === null) return undefined;
  return new Map<string, unknown>(Object.entries(node)).get(segment);
}

function json(value: unknown): ImdsAnswer {
  return { status: 200, contentType: jsonType, body: JSON.stringify(value) };
}

function text(body: string): ImdsAnswer {
  return { status: 200, contentType: textType, body };
}

/** The error format of the token endpoint. */
function invalidRequest(description: string): ImdsAnswer {
  return {
    status: 400,
    contentType: jsonType,
    body: JSON.stringify({ error: 'invalid_request', error_description: description }),
  };
}

/** The error format of the other categories. */
function badRequest(problem: string): ImdsAnswer {
  return {
    status: 400,
    contentType: jsonType,
    body: JSON.stringify({ error: `Bad request. ${problem}` }),
  };
}

function methodNotAllowed(): ImdsAnswer {
  return {
    status: 405,
    contentType: jsonType,
    body: JSON.stringify({ error: 'Method not allowed' }),
    allow: 'GET',
  };
}

function notFound(): ImdsAnswer {
  return { status: 404, contentType: jsonType, body: JSON.stringify({ error: 'Not found' }) };
}
