/**
 * Identity bindings, as the API server of AKS has them: under another TLS name it takes the token of a service account,
 * asks RBAC of Kubernetes whether that account may use the managed identity, and has Entra ID issue the token, with an
 * assertion of an issuer of its own. What is not as documented is refused. How AKS words its refusals is not known.
 */
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { text } from 'node:stream/consumers';
import type { Clock } from '../../../src/base/time/clock.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../src/base/json-value.ts';
import type { ServerCertificate } from '../authority.ts';
import { createEntraApplication } from '../entra/applications.ts';
import { parseAssertion, verifyForeignAssertion, type PublishedKey } from '../entra/assertions.ts';
import {
  badRequest,
  failure,
  forbidden,
  notAllowed,
  renderRefusal,
  type Refusal,
} from './refusals.ts';
import { resourceOfKind } from './resources.ts';
import type { FakeKubeStore } from './store.ts';
import { createSigner, fakeIssuer, type SigningKeys } from './tokens.ts';

export interface IdentityBindingOptions {
  readonly clusterId: string;
  /** For the name of {@link bindingServerName}. */
  readonly tls: ServerCertificate;
  readonly entra: { readonly authority: string; readonly caPem: string };
}

/** It has no credential. */
export interface BindingRequest {
  readonly path: string;
  readonly clientId: string;
  /** Of the token of the service account, if it was verified. */
  readonly subject: string | undefined;
  readonly podUid: string | undefined;
  readonly status: number;
}

export interface BindingAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly retryAfter?: string | undefined;
}

export interface IdentityBindings {
  readonly serverName: string;
  /** The tenant of each managed identity that is bound to this cluster, by its client id. */
  readonly tenants: Map<string, string>;
  readonly requests: BindingRequest[];
  /** The next requests get this answer instead. */
  fault: BindingAnswer | undefined;
  /** Of the issuer of each binding. */
  keys(): Promise<readonly PublishedKey[]>;
  present(certificate: ServerCertificate): void;
  reset(): void;
}

export interface BindingCall {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** The audience of the service account's token. */
const bindingAudience = 'api://AKSIdentityBinding';
const entraAudience = 'api://AzureADTokenExchange';
const group = 'cid.wi.aks.azure.com';
const verb = 'use-managed-identity';
const formType = 'application/x-www-form-urlencoded';
const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const base32 = '0123456789abcdefghijklmnopqrstuv';

export function bindingServerName(clusterId: string): string {
  const digest = createHash('sha256').update('identity-binding').update(clusterId).digest();
  const bits = Array.from(digest, (byte) => byte.toString(2).padStart(8, '0')).join('');
  const digits = bits.match(/.{1,5}/g) ?? [];
  const label = digits.map((five) => base32[Number.parseInt(five.padEnd(5, '0'), 2)]).join('');
  return `a${label}.ests.aks`;
}

/** A name in the certificate that the API server presents otherwise. */
export function clusterHostName(clusterId: string): string {
  return `hcp-kubernetes.${clusterId}.svc.cluster.local`;
}

/** The federated credential that AKS writes to a managed identity, one for all clusters. */
export function bindingCredential(tenantId: string, clientId: string) {
  const issuer = `https://ib.oic.prod-aks.azure.com/${tenantId}/${clientId}`;
  return { issuer, subject: clientId, audience: entraAudience };
}

interface Facts {
  readonly store: FakeKubeStore;
  readonly clock: Clock;
  readonly keys: () => Promise<SigningKeys>;
}

/** @param presentFor makes the API server present a certificate for a name. */
export function createIdentityBindings(
  { clusterId, tls, entra }: IdentityBindingOptions,
  { store, clock, keys }: Facts,
  presentFor: (name: string, certificate: ServerCertificate) => void,
) {
  const serverName = bindingServerName(clusterId);
  const present = (certificate: ServerCertificate) => presentFor(serverName, certificate);
  const signer = createSigner();
  present(tls);
  const bindings: IdentityBindings = {
    serverName,
    tenants: new Map(),
    requests: [],
    fault: undefined,
    keys: async () => [(await signer).verifying],
    present,
    reset() {
      this.tenants.clear();
      this.requests.length = 0;
      this.fault = undefined;
      present(tls);
    },
  };

  async function answer(call: BindingCall): Promise<BindingAnswer> {
    if (bindings.fault !== undefined) return record(call, undefined, bindings.fault);
    const form = new URLSearchParams(call.body);
    const clientId = form.get('client_id') ?? '';
    const tenantId = bindings.tenants.get(clientId);
    const problem = problemOf(call, form, tenantId);
    if (problem !== undefined) return record(call, undefined, refusal(problem));
    const claims = await verified(form.get('client_assertion') ?? '');
    if (claims === undefined) return record(call, undefined, refusal(failure(401, 'Unauthorized')));
    const subject = stringAt(claims, 'sub');
    if (!mayUse(store, subject, clientId)) {
      return record(call, claims, refusal(forbidden(subject, verb, clientId, group)));
    }
    const credential = bindingCredential(tenantId ?? '', clientId);
    const nowSec = Math.floor(clock.wallMs() / 1000);
    const { issuer: iss, audience: aud } = credential;
    const own = { iss, sub: credential.subject, aud, iat: nowSec, nbf: nowSec, exp: nowSec + 600 };
    form.set('client_assertion', (await signer).sign(own));
    const id = String(call.headers['client-request-id'] ?? '');
    const headers = { 'content-type': formType, 'client-request-id': id };
    const url = `${entra.authority}/${tenantId ?? ''}/oauth2/v2.0/token`;
    return record(call, claims, await post(url, headers, form.toString(), entra.caPem));
  }

  function record(
    { path, body }: BindingCall,
    claims: JsonRecord | undefined,
    given: BindingAnswer,
  ) {
    const pod = asRecord(asRecord(claims?.['kubernetes.io'])?.['pod']);
    bindings.requests.push({
      path,
      clientId: new URLSearchParams(body).get('client_id') ?? '',
      subject: claims && stringAt(claims, 'sub'),
      podUid: pod && stringAt(pod, 'uid'),
      status: given.status,
    });
    return given;
  }

  /** The claims of a token for this audience alone, of a service account and a pod that still exist. */
  async function verified(token: string): Promise<JsonRecord | undefined> {
    const assertion = parseAssertion(token);
    if (assertion === undefined) return undefined;
    const { claims } = assertion;
    const subject = stringAt(claims, 'sub');
    const wanted = { issuer: fakeIssuer, subject, audience: bindingAudience };
    const trusting = createEntraApplication('cluster', { federatedCredentials: [wanted] });
    const keysOf = async () => (await keys()).keys;
    const verdict = await verifyForeignAssertion(assertion, trusting, keysOf, clock.wallMs());
    const own = asRecord(claims['kubernetes.io']);
    const namespace = stringAt(own, 'namespace');
    const isAlive = (kind: string, ref: JsonRecord | undefined) =>
      store.get({ kind, namespace, name: stringAt(ref, 'name') })?.metadata.uid ===
      stringAt(ref, 'uid');
    const isGood =
      verdict.ok &&
      JSON.stringify(claims['aud']) === JSON.stringify([bindingAudience]) &&
      isAlive('ServiceAccount', asRecord(own?.['serviceaccount'])) &&
      isAlive('Pod', asRecord(own?.['pod']));
    return isGood ? claims : undefined;
  }

  return { bindings, answer };
}

function problemOf(
  { method, path, headers }: BindingCall,
  form: URLSearchParams,
  tenantId: string | undefined,
): Refusal | undefined {
  if (path !== '/' && !/^\/[^/?]+\/oauth2\/v2\.0\/token$/.test(path)) {
    return failure(404, 'the server could not find the requested resource');
  }
  if (method !== 'POST') return notAllowed;
  if (headers.authorization !== undefined) return badRequest('there must be no other credential');
  if (headers['impersonate-user'] !== undefined) return badRequest('nobody is impersonated here');
  if (headers['content-type']?.split(';')[0] !== formType) return badRequest(`send ${formType}`);
  const fixed = { grant_type: 'client_credentials', client_assertion_type: assertionType };
  for (const [name, value] of Object.entries(fixed)) {
    if (form.getAll(name).join() !== value) return badRequest(`${name} must be ${value}`);
  }
  for (const name of ['client_id', 'scope', 'client_assertion']) {
    if (form.getAll(name).length !== 1) return badRequest(`${name} must be there once`);
  }
  if (form.has('client_secret')) return badRequest('there must be no other credential');
  if (!/^\S+\/\.default$/.test(form.get('scope') ?? ''))
    return badRequest('scope must be RESOURCE/.default');
  if (tenantId === undefined)
    return badRequest('the managed identity is not bound to this cluster');
  const isOther = path !== '/' && decodeURIComponent(path.split('/')[1] ?? '') !== tenantId;
  return isOther ? badRequest('the managed identity is of another tenant') : undefined;
}

/** By ClusterRoles that are bound to the account itself. */
function mayUse(store: FakeKubeStore, subject: string, clientId: string): boolean {
  const [, , namespace, name] = subject.split(':');
  const has = (value: unknown, item: string) => Array.isArray(value) && value.includes(item);
  const records = (value: unknown) =>
    (Array.isArray(value) ? value : []).map((each) => asRecord(each));
  const list = (kind: string) => {
    const resource = resourceOfKind(kind);
    return resource === undefined ? [] : store.list(resource);
  };
  const roles = list('ClusterRole').filter(({ rules }) =>
    records(rules).some(
      (rule) =>
        has(rule?.['apiGroups'], group) &&
        has(rule?.['verbs'], verb) &&
        has(rule?.['resources'], clientId),
    ),
  );
  return list('ClusterRoleBinding').some(({ roleRef, subjects }) => {
    const isOfRole = roles.some(
      ({ metadata }) => metadata.name === stringAt(asRecord(roleRef), 'name'),
    );
    return (
      isOfRole &&
      records(subjects).some(
        (each) =>
          stringAt(each, 'kind') === 'ServiceAccount' &&
          stringAt(each, 'namespace') === namespace &&
          stringAt(each, 'name') === name,
      )
    );
  });
}

function refusal(problem: Refusal): BindingAnswer {
  const body = JSON.stringify(renderRefusal(problem));
  return { status: problem.status, type: 'application/json', body };
}

async function post(
  url: string,
  headers: Readonly<Record<string, string>>,
  form: string,
  ca: string,
): Promise<BindingAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request(url, { method: 'POST', headers, ca, agent: false }, resolve)
    .on('error', reject)
    .end(form);
  const answer = await promise;
  return {
    status: answer.statusCode ?? 0,
    type: answer.headers['content-type'] ?? '',
    retryAfter: answer.headers['retry-after'],
    body: await text(answer),
  };
}
