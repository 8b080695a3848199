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

/** Reads the number of nodes from the status of the agents' DaemonSet, once a minute. */
export class WritePace implements AsyncDisposable {
  readonly #options: WritePaceOptions;
  readonly #job: Disposable;
  readonly #ended = new AbortController();
  #reading: Promise<unknown> = Promise.resolve();
  #nodes = manyNodes;
  #isLogged = false;

  constructor(options: WritePaceOptions) {
    this.#options = options;
    this.#job = startPeriodicJob(options.clock, 0, () => {
      const reading = this.#read().then(() => readEveryMs);
      this.#reading = reading;
      return reading;
    });
  }

  /** Time between the beginnings of two writes. */
  get pauseMs(): number {
    const pauseMs = (1_000 * this.#nodes) / this.#options.config.maxWatchEventsPerSec;
    return Math.min(pauses.mostMs, Math.max(pauses.leastMs, pauseMs));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    this.#job[Symbol.dispose]();
    await this.#reading;
  }

  async #read(): Promise<void> {
    const { client, config, log } = this.#options;
    const call = { signal: this.#ended.signal, timeoutMs: callTimeoutMs };
    try {
      const { agentNamespace, agentDaemonSet } = config;
      const path = `/apis/apps/v1/namespaces/${agentNamespace}/daemonsets/${agentDaemonSet}`;
      const status = asRecord(asRecord(await client.getJson(path, call))?.['status']);
      const nodes = status?.['desiredNumberScheduled'];
      // Zero until the controller has counted them.
      if (typeof nodes !== 'number' || !(nodes > 0)) {
        throw new KubeError('MALFORMED', 'the DaemonSet has no number of nodes');
      }
      this.#nodes = nodes;
      this.#isLogged = false;
    } catch (error) {
      this.#nodes = Math.max(this.#nodes, manyNodes);
      if (this.#isLogged || this.#ended.signal.aborted) return;
      this.#isLogged = true;
      const code = error instanceof KubeError ? error.code : 'UNKNOWN';
      const { agentDaemonSet: daemonSet } = config;
      log.warn(
        { daemonSet, code, nodes: this.#nodes },
        'number of nodes unknown, status conditions are written as slowly as for a large cluster',
      );
    }
  }
}
