/**
 * Each change of the agent's readiness as an Event on its own pod, which `kubectl describe` shows
 * beside the failed probes of the kubelet: what is missing, and why.
 */
import type { Clock } from '../../base/time/clock.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import type { Readiness } from '../base/readiness.ts';
import type { OwnAccount } from '../kube/accounts/own-account.ts';
import { noteOf, type EventDraft, type ObjectReference } from '../kube/events/event.ts';
import type { EventSink } from '../kube/events/event-writer.ts';

export interface ReadinessEventsOptions {
  readonly events: EventSink;
  /** Determines the agent's own pod; an agent outside of a pod reports nothing. */
  readonly ownAccount: Pick<OwnAccount, 'get'>;
  readonly readiness: () => Readiness;
  readonly clock: Clock;
}

/** As often as the kubelet probes. */
const pollMs = 5_000;
/** Pause before the API server is queried again for the agent's own pod. */
const retryMs = 15_000;
/** A start takes this long on a slow node, and is not a failure. */
const startMs = 30_000;

/** Begins at once; disposal ends it. */
export function openReadinessEvents(options: ReadinessEventsOptions): Disposable {
  const { events, ownAccount, readiness, clock } = options;
  const ended = new AbortController();
  const startedAtMs = clock.monotonicMs();
  /** The state of the latest Event. */
  let reported: string | undefined;

  const look = async (): Promise<number | undefined> => {
    const { ready, missing } = readiness();
    const names = Object.keys(missing).toSorted();
    const state = ready ? 'Ready' : `NotReady ${names.join(' ')}`;
    const isStarting = reported === undefined && clock.monotonicMs() - startedAtMs < startMs;
    if (state === reported || (!ready && isStarting)) return pollMs;
    const pod = await ownPod(ownAccount, ended.signal);
    if (pod === 'none') return undefined;
    if (pod === 'unknown') return retryMs;
    reported = state;
    events.record(pod, state, () => draftOf(ready, missing));
    return pollMs;
  };
  const job = startPeriodicJob(clock, 0, () => look().catch(() => undefined));
  return {
    [Symbol.dispose]: () => {
      ended.abort();
      job[Symbol.dispose]();
    },
  };
}

function draftOf(
  ready: boolean,
  missing: Readonly<Record<string, string>>,
): Omit<EventDraft, 'regarding'> {
  const whys = Object.entries(missing).map(([name, why]) => `${name}: ${why}`);
  return {
    related: undefined,
    type: ready ? 'Normal' : 'Warning',
    reason: ready ? 'Ready' : 'NotReady',
    action: 'CheckReadiness',
    note: ready
      ? 'The agent is ready: pods of this node get tokens.'
      : noteOf(`The agent is not ready. ${whys.join('; ')}`, 'kubectl nmi doctor'),
  };
}

async function ownPod(
  ownAccount: Pick<OwnAccount, 'get'>,
  signal: AbortSignal,
): Promise<ObjectReference | 'none' | 'unknown'> {
  const account = await ownAccount.get(signal);
  switch (account.kind) {
    case 'ok': {
      const { pod, serviceAccount } = account;
      if (pod === undefined) return 'none';
      const { namespace } = serviceAccount;
      return { apiVersion: 'v1', kind: 'Pod', namespace, name: pod.name, uid: pod.uid };
    }
    case 'unavailable':
      return 'unknown';
    case 'forbidden':
    case 'no_service_account':
      return 'none';
  }
}
