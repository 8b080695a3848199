/** Why there is no assertion, as a source failure: the problem and its remedy. */
import { fullName, type ObjectName } from '../../../../cache/index/object-name.ts';
import type { Unavailable } from '../../../kube/api/call-outcome.ts';
import type { OwnAccountOutcome } from '../../../kube/accounts/own-account.ts';
import type { PodName, ServiceAccountTokenOutcome } from '../../../kube/accounts/token-request.ts';
import { printable } from '../../../../base/printable.ts';
import type { SourceFailure } from '../../source.ts';

/** Short, so that a fix takes effect soon, and long enough to prevent a storm of requests. */
const cooldownMs = 5_000;
/** A stampede on an API server that does not answer is one call and not a thousand. */
const [downHoldMs, maxCooldownMs] = [500, 10_000];

export interface Subject {
  readonly serviceAccount: ObjectName;
  readonly pod: PodName | undefined;
  readonly audience: string;
}

export function noLivePod(serviceAccount: ObjectName): SourceFailure {
  const account = printable(fullName(serviceAccount));
  return missing(`No live pod of this node runs under service account ${account}`);
}

export function failureOfToken(
  outcome: Exclude<ServiceAccountTokenOutcome, { kind: 'ok' }>,
  { serviceAccount, audience, pod }: Subject,
): SourceFailure {
  const account = `service account ${printable(fullName(serviceAccount))}`;
  const podName = pod === undefined ? '' : printable(`${serviceAccount.namespace}/${pod.name}`);
  switch (outcome.kind) {
    case 'missing':
      return missing(
        `The ${account}${podName === '' ? '' : ` or pod ${podName}`} does not exist`,
        outcome.said,
      );
    case 'forbidden':
      return invalid(
        `The agent may not have a token of ${account}. Its own service account has to have the right to create serviceaccounts/token: set rbac.allowFederation=true of the chart, and if rbac.federationNamespaces is set, add ${printable(serviceAccount.namespace)}. Or an admission policy denies it`,
        outcome.said,
      );
    case 'refused':
      return invalid(
        `The API server refuses a token of ${account} for audience ${printable(audience)}`,
        outcome.said,
      );
    case 'pod_replaced':
      // The watch reports the pod's successor, or its deletion, within a second.
      return down(`pod ${podName} has just been replaced`, 1_000, undefined);
    case 'unavailable':
      return unavailable(`a token of ${account}`, outcome);
  }
}

export function failureOfAccount(
  outcome: Exclude<OwnAccountOutcome, { kind: 'ok' }>,
): SourceFailure {
  switch (outcome.kind) {
    case 'no_service_account':
      return invalid(
        `With spec.federation node the agent's own service account is the subject, and the API server authenticates the agent as ${printable(outcome.username)}, which is none. Run it under a service account`,
      );
    case 'forbidden':
      return invalid(
        'The agent may not read its own user name. Allow its service account to create selfsubjectreviews of authentication.k8s.io',
        outcome.said,
      );
    case 'unavailable':
      return unavailable("the agent's own name", outcome);
  }
}

function missing(text: string, said = ''): SourceFailure {
  return { reason: 'credential_missing', description: text + wordsOf(said), cooldownMs };
}

function invalid(text: string, said = ''): SourceFailure {
  return { reason: 'credential_invalid', description: text + wordsOf(said), cooldownMs };
}

function unavailable(what: string, { problem, retryAfterMs }: Unavailable): SourceFailure {
  const description = `the Kubernetes API server does not return ${what} (${problem})`;
  return down(description, Math.max(downHoldMs, retryAfterMs ?? 0), retryAfterMs);
}

function down(
  description: string,
  waitMs: number,
  retryAfterMs: number | undefined,
): SourceFailure {
  const boundedMs = Math.min(waitMs, maxCooldownMs);
  return {
    reason: 'upstream_down',
    description,
    cooldownMs: boundedMs,
    ...(retryAfterMs === undefined ? {} : { retryAfterS: Math.ceil(boundedMs / 1000) }),
  };
}

/** The server's own message. `printable` would turn quotes into question marks. */
function wordsOf(said: string): string {
  return said === '' ? '' : `. API server: ${printable(said.replaceAll(/["'\\]/g, ''))}`;
}
