/**
 * Elects one of many agents by a Lease.
 *
 * 1. No two clocks are compared. A candidate takes the Lease when it has not changed for
 *    `durationMs` of the candidate's own monotonic time, whatever times it contains.
 * 2. The holder considers itself the holder for `deadlineMs` from just before its last successful
 *    write, which is less than `durationMs`: it has stopped before another can begin.
 * 3. Each write names the version that was read, so of two candidates one fails.
 * 4. Candidates poll rarely: 5,000 nodes read one small object, some 40 times a second together.
 *    The work of the leader can wait for minutes.
 */
import type { Clock } from '../../../cache/clock.ts';
import type { Log } from '../../base/log.ts';
import { startPeriodicJob } from '../../base/periodic-job.ts';
import { backoffMs } from '../api/backoff.ts';
import type { KubeClient, RequestOptions } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';
import { parseLease, renderLease, type LeaseRecord } from './lease-record.ts';

export type LeaseClient = Pick<KubeClient, 'getJson' | 'postJson' | 'putJson'>;

export interface ElectionTiming {
  /** Time after which an unchanged Lease is free. */
  readonly durationMs: number;
  /** How long the holder remains leader without a successful renewal. Less than `durationMs`. */
  readonly deadlineMs: number;
  readonly renewMs: number;
  /** Mean pause between two polls of a candidate; each is between half of it and one and a half. */
  readonly pollMs: number;
  /** Longest time before the first poll: nodes that start together do not poll together. */
  readonly firstMs: number;
}

const defaultTiming: ElectionTiming = {
  durationMs: 60_000,
  deadlineMs: 40_000,
  renewMs: 15_000,
  pollMs: 120_000,
  firstMs: 10_000,
};

export interface ElectionOptions {
  readonly client: LeaseClient;
  readonly namespace: string;
  readonly name: string;
  /** Unique to this process: a restarted agent is another candidate. */
  readonly identity: string;
  /** The leader's work: begun when elected, disposed when not the leader any more. */
  readonly lead: () => AsyncDisposable;
  readonly clock: Clock;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly log: Log;
  readonly timing?: Partial<ElectionTiming>;
}

const failureBackoff = { baseMs: 1_000, capMs: 5_000 } as const;
/** A missing permission needs a new manifest, so there is no hurry. */
const forbiddenPauseMs = 600_000;
const callTimeoutMs = 5_000;
const releaseTimeoutMs = 2_000;

export class LeaderElection implements AsyncDisposable {
  readonly #options: ElectionOptions;
  readonly #timing: ElectionTiming;
  readonly #job: Disposable;
  readonly #ended = new AbortController();
  #run: Promise<unknown> = Promise.resolve();

  /** As last read or written, and when it was first seen like this. */
  #record: LeaseRecord | undefined;
  #unchangedSinceMs = 0;
  /** Time before the last write as the holder; undefined while another candidate is the holder. */
  #renewedAtMs: number | undefined;
  #leading: AsyncDisposable | undefined;
  #failures = 0;
  #loggedCode = '';

  constructor(options: ElectionOptions) {
    this.#options = options;
    this.#timing = { ...defaultTiming, ...options.timing };
    const { clock, random } = options;
    this.#job = startPeriodicJob(clock, random() * this.#timing.firstMs, () => {
      const run = this.#tick();
      this.#run = run;
      return run;
    });
  }

  /** True as long as no other candidate can have taken the Lease. */
  get isLeader(): boolean {
    const { clock } = this.#options;
    if (this.#renewedAtMs === undefined) return false;
    return clock.monotonicMs() - this.#renewedAtMs < this.#timing.deadlineMs;
  }

  /** Stops leading and releases the Lease. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#job[Symbol.dispose]();
    this.#ended.abort();
    await this.#run;
    const wasLeader = this.isLeader;
    await this.#resign();
    if (!wasLeader || this.#record === undefined) return;
    // If this write fails, the next leader has to wait until the Lease expires, and nothing worse.
    await this.#put('', { timeoutMs: releaseTimeoutMs }).catch(() => undefined);
  }

  async #tick(): Promise<number | undefined> {
    const { log, random } = this.#options;
    try {
      await (this.#renewedAtMs === undefined ? this.#campaign() : this.#renew());
      this.#failures = 0;
      this.#loggedCode = '';
    } catch (error) {
      if (this.#ended.signal.aborted) return undefined;
      const { code, retryAfterMs } = failureOf(error);
      this.#failures += 1;
      if (this.#loggedCode !== code) {
        this.#loggedCode = code;
        log.warn({ lease: this.#options.name, code }, 'failed to read or write Lease');
      }
      if (!this.isLeader) await this.#resign();
      if (code === 'FORBIDDEN') return forbiddenPauseMs * (1 + random());
      // A candidate is in no hurry.
      if (this.#renewedAtMs === undefined) return this.#pollMs();
      return backoffMs(failureBackoff, this.#failures, random(), retryAfterMs);
    }
    return this.#renewedAtMs === undefined ? this.#pollMs() : this.#timing.renewMs;
  }

  #pollMs(): number {
    return this.#timing.pollMs * (0.5 + this.#options.random());
  }

  async #campaign(): Promise<void> {
    const { clock } = this.#options;
    const record = await this.#read();
    const nowMs = clock.monotonicMs();
    if (record?.version !== this.#record?.version) this.#unchangedSinceMs = nowMs;
    this.#record = record;
    const isFree =
      record === undefined ||
      record.holder === '' ||
      record.holder === this.#options.identity ||
      nowMs - this.#unchangedSinceMs >= this.#timing.durationMs;
    if (!isFree || this.#ended.signal.aborted) return;
    await this.#take(nowMs);
  }

  async #take(nowMs: number): Promise<void> {
    try {
      await this.#put(this.#options.identity);
    } catch (error) {
      // Another candidate was faster.
      if (isConflict(error)) return;
      throw error;
    }
    this.#renewedAtMs = nowMs;
    this.#options.log.info({ lease: this.#options.name }, 'Lease acquired');
    this.#leading = this.#options.lead();
  }

  async #renew(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    try {
      await this.#put(this.#options.identity);
    } catch (error) {
      if (!isConflict(error) && !isMissing(error)) throw error;
      // Deleted, or changed: by another agent, or by our own write if its answer was lost.
      const record = await this.#read();
      const isOurs = record?.holder === this.#options.identity;
      this.#record = record;
      this.#unchangedSinceMs = nowMs;
      if (!isOurs) await this.#resign();
      return;
    }
    // If the deadline passed during the write, leadership ended with it.
    if (!this.isLeader) await this.#resign();
    else this.#renewedAtMs = nowMs;
  }

  async #resign(): Promise<void> {
    if (this.#renewedAtMs === undefined) return;
    this.#renewedAtMs = undefined;
    const leading = this.#leading;
    this.#leading = undefined;
    if (!this.#ended.signal.aborted) {
      this.#options.log.info({ lease: this.#options.name }, 'Lease lost');
    }
    await leading?.[Symbol.asyncDispose]();
  }

  async #read(): Promise<LeaseRecord | undefined> {
    const { client } = this.#options;
    try {
      return recordOf(await client.getJson(this.#path(), this.#call()));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #put(holder: string, call: RequestOptions = this.#call()): Promise<void> {
    const { client, namespace, name, clock } = this.#options;
    const { durationMs } = this.#timing;
    const nowWallMs = clock.wallMs();
    const known = this.#record;
    const body = renderLease({ namespace, name, holder, durationMs, nowWallMs }, known);
    const written =
      known === undefined
        ? await client.postJson(collectionOf(namespace), body, call)
        : await client.putJson(this.#path(), body, call);
    this.#record = recordOf(written);
    this.#unchangedSinceMs = clock.monotonicMs();
  }

  #call(): RequestOptions {
    return { signal: this.#ended.signal, timeoutMs: callTimeoutMs };
  }

  #path(): string {
    return `${collectionOf(this.#options.namespace)}/${this.#options.name}`;
  }
}

function collectionOf(namespace: string): string {
  return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
}

function recordOf(body: unknown): LeaseRecord {
  const record = parseLease(body);
  if (record === undefined) throw new KubeError('MALFORMED', 'the answer is no Lease');
  return record;
}

function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409;
}

function isMissing(error: unknown): boolean {
  return error instanceof KubeError && error.code === 'NOT_FOUND';
}

function failureOf(error: unknown): { code: string; retryAfterMs?: number | undefined } {
  return error instanceof KubeError ? error : { code: 'UNKNOWN' };
}
