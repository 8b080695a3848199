/** The API server sends every write to each node: 30,000 writes to 5,000 nodes are 105 GB. */
import type { Clock } from '../../base/time/clock.ts';
import { asRecord } from '../../base/json-value.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/time/periodic-job.ts';
import type { Config } from '../config/config.ts';
import type { KubeClient } from '../kube/api/client.ts';
import { KubeError } from '../kube/api/kube-error.ts';

export interface WritePaceOptions {
  readonly client: Pick<KubeClient, 'getJson'>;
  readonly config: Pick<Config, 'agentDaemonSet' | 'agentNamespace' | 'maxWatchEventsPerSec'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Assumed while the number is unknown. */
const manyNodes = 5_000;
const pauses = { leastMs: 100, mostMs: 10_000 };
const readEveryMs = 60_000;
const callTimeoutMs = 5_000;

export interface WritePace extends AsyncDisposable {
  readonly pauseMs: number;
}

/** Reads the number of nodes from the status of the agents' DaemonSet, once a minute. */
export function openWritePace({ client, config, clock, log }: WritePaceOptions): WritePace {
  const { agentNamespace, agentDaemonSet, maxWatchEventsPerSec } = config;
  const path = `/apis/apps/v1/namespaces/${agentNamespace}/daemonsets/${agentDaemonSet}`;
  const ended = new AbortController();
  let reading: Promise<number> = Promise.resolve(0);
  let nodes = manyNodes;
  let isLogged = false;

  async function read(): Promise<number> {
    const call = { signal: ended.signal, timeoutMs: callTimeoutMs };
    try {
      const status = asRecord(asRecord(await client.getJson(path, call))?.['status']);
      const scheduled = status?.['desiredNumberScheduled'];
      // Zero until the controller has counted them.
      if (typeof scheduled !== 'number' || !(scheduled > 0)) {
        throw new KubeError('MALFORMED', 'the DaemonSet has no number of nodes');
      }
      nodes = scheduled;
      isLogged = false;
    } catch (error) {
      nodes = Math.max(nodes, manyNodes);
      if (isLogged || ended.signal.aborted) return readEveryMs;
      isLogged = true;
      const code = error instanceof KubeError ? error.code : 'UNKNOWN';
      log.warn(
        { daemonSet: agentDaemonSet, code, nodes },
        'number of nodes unknown, status conditions are written as slowly as for a large cluster',
      );
    }
    return readEveryMs;
  }

  const job = startPeriodicJob(clock, 0, () => (reading = read()));
  return {
    get pauseMs() {
      const pauseMs = (1_000 * nodes) / maxWatchEventsPerSec;
      return Math.min(pauses.mostMs, Math.max(pauses.leastMs, pauseMs));
    },
    async [Symbol.asyncDispose]() {
      ended.abort();
      job[Symbol.dispose]();
      await reading;
    },
  };
}
