/**
 * Requests a token of a service account for one audience from the API server (TokenRequest API).
 * Needs the permission `create` on `serviceaccounts/token`.
 */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { isDnsLabel, isDnsSubdomain } from '../../../base/dns-name.ts';
import { asRecord, stringAt } from '../../../base/json-value.ts';
import {
  malformed,
  outcomeOfFailure,
  type Forbidden,
  type Unavailable,
} from '../api/call-outcome.ts';
import type { KubeCalls, RequestOptions } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';

/** Client for posting objects, such as `KubeClient`. */
export type JsonPoster = Pick<KubeCalls, 'postJson'>;

/**
 * The pod that a token is bound to. Without a UID, a re-created pod of that name would match too.
 */
export interface PodName {
  readonly name: string;
  readonly uid: string;
}

export interface ServiceAccountTokenRequest {
  readonly serviceAccount: ObjectName;
  readonly audience: string;
  /** At least 600. The server may choose another value. */
  readonly expirationSeconds: number;
  /** A pod that runs under the service account. */
  readonly boundTo?: PodName | undefined;
}

export interface ServiceAccountToken {
  readonly kind: 'ok';
  /** A JWT; secret. */
  readonly token: string;
  /** Expiry by the server's clock. */
  readonly expiresAtWallMs: number;
  /** The granted life from the token's creation, which needs no synchronized clocks. */
  readonly lifeMs: number;
}

/** `said` is the API server's own message, if there was a request. */
export type ServiceAccountTokenOutcome =
  | ServiceAccountToken
  /** The service account or the pod does not exist. */
  | { readonly kind: 'missing'; readonly said: string }
  /** The pod of that name has another UID or service account: it was deleted and re-created. */
  | { readonly kind: 'pod_replaced'; readonly said: string }
  /** The server or an admission policy rejected the request. */
  | { readonly kind: 'refused'; readonly said: string }
  | Forbidden
  | Unavailable;

/** Path of the service account; `undefined` for an invalid name. */
export function serviceAccountPath({ namespace, name }: ObjectName): string | undefined {
  if (!isDnsLabel(namespace) || !isDnsSubdomain(name)) return undefined;
  return `/api/v1/namespaces/${namespace}/serviceaccounts/${name}`;
}

/** Rejects only with the reason of `call.signal`. */
export async function requestServiceAccountToken(
  client: JsonPoster,
  request: ServiceAccountTokenRequest,
  call: RequestOptions = {},
): Promise<ServiceAccountTokenOutcome> {
  const path = serviceAccountPath(request.serviceAccount);
  if (path === undefined) return { kind: 'missing', said: '' };
  try {
    return tokenOf(await client.postJson(`${path}/token`, bodyOf(request), call), request);
  } catch (error) {
    return classify(error, request);
  }
}

function bodyOf({ audience, expirationSeconds, boundTo }: ServiceAccountTokenRequest): unknown {
  return {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: {
      audiences: [audience],
      expirationSeconds,
      ...(boundTo === undefined
        ? {}
        : {
            boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: boundTo.name, uid: boundTo.uid },
          }),
    },
  };
}

const jwt = /^[\w-]+\.[\w-]+\.[\w-]+$/;

function tokenOf(body: unknown, request: ServiceAccountTokenRequest): ServiceAccountTokenOutcome {
  const answer = asRecord(body);
  const status = asRecord(answer?.['status']);
  const token = stringAt(status, 'token');
  const expiresAtWallMs = Date.parse(stringAt(status, 'expirationTimestamp'));
  if (!jwt.test(token) || Number.isNaN(expiresAtWallMs)) return malformed;
  // The answer repeats the request with the server's values.
  const grantedS = asRecord(answer?.['spec'])?.['expirationSeconds'];
  const lifeS = typeof grantedS === 'number' ? grantedS : request.expirationSeconds;
  return { kind: 'ok', token, expiresAtWallMs, lifeMs: lifeS * 1000 };
}

function classify(
  error: unknown,
  { boundTo }: ServiceAccountTokenRequest,
): ServiceAccountTokenOutcome {
  if (!(error instanceof KubeError)) return outcomeOfFailure(error);
  const said = error.message;
  if (error.code === 'NOT_FOUND') return { kind: 'missing', said };
  // 409: another uid. 400: another service account. The request is well-formed in either case.
  const isOtherPod = error.status === 409 || error.status === 400;
  if (boundTo !== undefined && isOtherPod) return { kind: 'pod_replaced', said };
  if (isOtherPod || error.status === 422) return { kind: 'refused', said };
  return outcomeOfFailure(error);
}
