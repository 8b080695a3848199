/**
 * The agent's own service account and pod, as the API server derives them from the agent's
 * credentials. Every authenticated user may create a SelfSubjectReview (Kubernetes 1.28), so the
 * token is not parsed here.
 */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { asRecord, stringAt, type JsonRecord } from '../../../base/json-value.ts';
import {
  malformed,
  outcomeOfFailure,
  type Forbidden,
  type Unavailable,
} from '../api/call-outcome.ts';
import { SingleFlight } from '../../../base/single-flight.ts';
import type { JsonPoster, PodName } from './token-request.ts';

export interface AgentAccount {
  readonly kind: 'ok';
  readonly serviceAccount: ObjectName;
  /** Undefined when the agent's token is bound to no pod. */
  readonly pod: PodName | undefined;
}

export type OwnAccountOutcome =
  | AgentAccount
  /** For example a user of a kubeconfig, for which no tokens can be requested. */
  | { readonly kind: 'no_service_account'; readonly username: string }
  | Forbidden
  | Unavailable;

export interface OwnAccount {
  /**
   * Sends a request at each call until the account is known; then it is the same for the life of
   * the process. Rejects only with the signal's reason.
   */
  get(signal?: AbortSignal): Promise<OwnAccountOutcome>;
}

const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
const timeoutMs = 5_000;
const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };

export function createOwnAccount({ client }: { readonly client: JsonPoster }): OwnAccount {
  const calls = new SingleFlight<OwnAccountOutcome>();
  let known: AgentAccount | undefined;

  async function ask(): Promise<OwnAccountOutcome> {
    try {
      const outcome = accountOf(await client.postJson(path, review, { timeoutMs }));
      if (outcome.kind === 'ok') known = outcome;
      return outcome;
    } catch (error) {
      return outcomeOfFailure(error);
    }
  }

  return { get: async (signal) => known ?? calls.share('', ask, signal) };
}

function accountOf(body: unknown): OwnAccountOutcome {
  const user = asRecord(asRecord(asRecord(body)?.['status'])?.['userInfo']);
  const username = stringAt(user, 'username');
  if (username === '') return malformed;
  const [system, kind, namespace, name, ...rest] = username.split(':');
  const isAccount = system === 'system' && kind === 'serviceaccount' && rest.length === 0;
  if (!isAccount || namespace === undefined || name === undefined) {
    return { kind: 'no_service_account', username };
  }
  return { kind: 'ok', serviceAccount: { namespace, name }, pod: podOf(asRecord(user?.['extra'])) };
}

function podOf(extra: JsonRecord | undefined): PodName | undefined {
  const name = onlyText(extra?.['authentication.kubernetes.io/pod-name']);
  const uid = onlyText(extra?.['authentication.kubernetes.io/pod-uid']);
  return name === undefined || uid === undefined ? undefined : { name, uid };
}

function onlyText(values: unknown): string | undefined {
  const texts: readonly unknown[] = Array.isArray(values) ? values : [];
  const [text] = texts;
  return texts.length === 1 && typeof text === 'string' && text !== '' ? text : undefined;
}
