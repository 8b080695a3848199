/**
 * The fake Kubernetes API as issuer of service account tokens: real RS256 signatures by a key that
 * is generated at the first request, the claims and errors of the real server, and the two
 * documents that verifiers need.
 */
import { createHash, generateKeyPair, randomUUID, sign, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import type { Clock } from '../../../src/base/time/clock.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../src/base/json-value.ts';
import {
  badRequest,
  invalidField,
  notFound,
  unrecognized,
  type FieldProblem,
  type Refusal,
} from './refusals.ts';
import { resourceOfKind, type FakeObject } from './resources.ts';
import type { FakeKubeStore } from './store.ts';

/** The `iss` claim. No server listens at this address: the fake API server serves the documents. */
export const fakeIssuer = 'https://oidc.cluster.example/lab';

/** One RSA key for verifying, as a JSON Web Key. */
export interface SigningKey {
  readonly kty: 'RSA';
  readonly use: 'sig';
  readonly alg: 'RS256';
  readonly kid: string;
  readonly n: string;
  readonly e: string;
}

export interface SigningKeys {
  readonly keys: readonly SigningKey[];
}

export type TokenAnswer = { readonly ok: true; readonly review: JsonRecord } | TokenRefusal;

type TokenRefusal = { readonly ok: false } & Refusal;

export interface TokenIssuer {
  /** The body of `/openid/v1/jwks`. */
  keys(): Promise<SigningKeys>;
  /**
   * Answers a TokenRequest. As in the real server, the account is looked up first, then the request
   * is checked, then the object it is bound to.
   * @param maxSec longer lifetimes are cut to this.
   */
  answer(
    account: { readonly namespace: string; readonly name: string },
    body: unknown,
    maxSec: number | undefined,
  ): Promise<TokenAnswer>;
}

/** The identity of a client, as in SelfSubjectReview. */
export interface FakeUser {
  readonly username: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

const type = { group: 'authentication.k8s.io', kind: 'TokenRequest' };
const minLifetimeSec = 600;
const maxLifetimeSec = 2 ** 32;
const defaultLifetimeSec = 3600;

export function createTokenIssuer(store: FakeKubeStore, clock: Clock): TokenIssuer {
  let made: Promise<Signer> | undefined;
  const signer = (): Promise<Signer> => (made ??= createSigner());

  return {
    keys: async () => ({ keys: [(await signer()).verifying] }),
    answer: async ({ namespace, name }, body, maxSec) => {
      const request = asRecord(body);
      const spec = asRecord(request?.['spec']) ?? {};
      if (request === undefined) return refuse(unrecognized('TokenRequest', 'not an object'));
      const askedSec = spec['expirationSeconds'] ?? defaultLifetimeSec;
      if (typeof askedSec !== 'number' || !Number.isInteger(askedSec)) {
        const message = 'json: cannot unmarshal spec.expirationSeconds into int64';
        return refuse(
          badRequest(
            `TokenRequest in version "v1" cannot be handled as a TokenRequest: ${message}`,
          ),
        );
      }
      const named = stringAt(asRecord(request['metadata']), 'name');
      if (named !== '' && named !== name) {
        const problem = 'must match the service account name if specified';
        return refuse(invalidField(type, name, { field: 'metadata.name', value: named, problem }));
      }
      const account = store.get({ kind: 'ServiceAccount', namespace, name });
      if (account === undefined) return refuse(missing('ServiceAccount', name));
      const problem = findLifetimeProblem(askedSec);
      if (problem !== undefined) return refuse(invalidField(type, '', problem));
      const bound = findBound(store, account, asRecord(spec['boundObjectRef']));
      if (!bound.ok) return bound;
      const audiences = readAudiences(spec['audiences']);
      const lifetimeSec = Math.min(askedSec, maxSec ?? Infinity);
      const nowSec = Math.floor(clock.wallMs() / 1000);
      const token = (await signer()).sign({
        aud: audiences,
        exp: nowSec + lifetimeSec,
        iat: nowSec,
        iss: fakeIssuer,
        jti: randomUUID(),
        'kubernetes.io': {
          namespace,
          ...bound.claims,
          serviceaccount: { name, uid: account.metadata.uid },
        },
        nbf: nowSec,
        sub: `system:serviceaccount:${namespace}:${name}`,
      });
      const review = {
        kind: 'TokenRequest',
        apiVersion: 'authentication.k8s.io/v1',
        metadata: { name, namespace, creationTimestamp: renderSec(nowSec) },
        spec: { boundObjectRef: null, ...spec, audiences, expirationSeconds: lifetimeSec },
        status: { token, expirationTimestamp: renderSec(nowSec + lifetimeSec) },
      };
      return { ok: true, review };
    },
  };
}

/** The body of `/.well-known/openid-configuration`. */
export function describeIssuer(): JsonRecord {
  return {
    issuer: fakeIssuer,
    jwks_uri: `${fakeIssuer}/openid/v1/jwks`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
  };
}

/** A client with a token of this service account, bound to a pod if one is given. */
export function createAccountUser(account: {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  readonly pod?: { readonly name: string; readonly uid: string };
}): FakeUser {
  const { namespace, name, pod } = account;
  const extra =
    pod === undefined
      ? undefined
      : {
          'authentication.kubernetes.io/pod-name': [pod.name],
          'authentication.kubernetes.io/pod-uid': [pod.uid],
        };
  return {
    username: `system:serviceaccount:${namespace}:${name}`,
    uid: account.uid ?? randomUUID(),
    groups: [
      'system:serviceaccounts',
      `system:serviceaccounts:${namespace}`,
      'system:authenticated',
    ],
    ...(extra === undefined ? {} : { extra }),
  };
}

/** The answer to a SelfSubjectReview of this client. */
export function reviewUser(user: FakeUser, nowWallMs: number): JsonRecord {
  return {
    kind: 'SelfSubjectReview',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { creationTimestamp: renderSec(Math.floor(nowWallMs / 1000)) },
    status: { userInfo: user },
  };
}

export interface Signer {
  readonly verifying: SigningKey;
  readonly sign: (claims: object) => string;
}

export async function createSigner(): Promise<Signer> {
  const { privateKey, publicKey } = await promisify(generateKeyPair)('rsa', {
    modulusLength: 2048,
  });
  const kid = keyIdOf(publicKey);
  const { n = '', e = '' } = publicKey.export({ format: 'jwk' });
  const header = encode({ alg: 'RS256', kid });
  return {
    verifying: { use: 'sig', kty: 'RSA', kid, alg: 'RS256', n, e },
    sign: (claims) => {
      const text = `${header}.${encode(claims)}`;
      return `${text}.${sign('sha256', Buffer.from(text), privateKey).toString('base64url')}`;
    },
  };
}

/** Derived as in the API server. */
function keyIdOf(publicKey: KeyObject): string {
  const der = publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(der).digest('base64url');
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function findLifetimeProblem(value: number): FieldProblem | undefined {
  const field = 'spec.expirationSeconds';
  if (value < minLifetimeSec) {
    return { field, value, problem: 'may not specify a duration less than 10 minutes' };
  }
  if (value <= maxLifetimeSec) return undefined;
  return { field, value, problem: 'may not specify a duration larger than 2^32 seconds' };
}

function readAudiences(value: unknown): readonly string[] {
  const audiences: readonly unknown[] = Array.isArray(value) ? value : [];
  const texts = audiences.filter((audience) => typeof audience === 'string');
  return texts.length === 0 ? [fakeIssuer] : texts;
}

type Bound = { readonly ok: true; readonly claims: JsonRecord } | TokenRefusal;

/** Pods only: the other kinds that tokens can be bound to are not supported here. */
function findBound(
  store: FakeKubeStore,
  { metadata: { namespace = 'default', name: account } }: FakeObject,
  ref: JsonRecord | undefined,
): Bound {
  if (ref === undefined) return { ok: true, claims: {} };
  const name = stringAt(ref, 'name');
  const uid = stringAt(ref, 'uid');
  const [version, kind] = [stringAt(ref, 'apiVersion'), stringAt(ref, 'kind')];
  if (kind !== 'Pod' || version !== 'v1') {
    const groupVersion = version.includes('/') ? version : `/${version}`;
    const message = `cannot bind token to object of type ${groupVersion}, Kind=${kind}`;
    return refuse(badRequest(message));
  }
  const pod = store.get({ kind, namespace, name });
  if (pod === undefined) return refuse(missing(kind, name));
  const spec = asRecord(pod['spec']);
  if (stringAt(spec, 'serviceAccountName') !== account) {
    const message = `cannot bind token for serviceaccount "${account}" to pod running with different serviceaccount name.`;
    return refuse(badRequest(message));
  }
  if (uid !== '' && uid !== pod.metadata.uid) {
    const message =
      `Operation cannot be fulfilled on Pod "${name}": the UID in the bound object reference ` +
      `(${uid}) does not match the UID in record. The object might have been deleted and then recreated`;
    return refuse({ status: 409, reason: 'Conflict', message, details: { name, kind } });
  }
  const node = stringAt(spec, 'nodeName');
  return {
    ok: true,
    claims: {
      ...(node === '' ? {} : { node: { name: node } }),
      pod: { name, uid: pod.metadata.uid },
    },
  };
}

function refuse(refusal: Refusal): TokenRefusal {
  return { ok: false, ...refusal };
}

function missing(kind: 'Pod' | 'ServiceAccount', name: string): Refusal {
  const resource = resourceOfKind(kind);
  if (resource === undefined) throw new TypeError(`unknown kind ${kind}`);
  return notFound(resource, name);
}

function renderSec(sec: number): string {
  return new Date(sec * 1000).toISOString().replace('.000Z', 'Z');
}
