/**
 * Calls of the real metadata service other than token requests. The service answers five of them
 * per second for the whole node. So pods take turns, equal requests share one call, and instance
 * metadata, which every SDK of a node requests alike, is kept for a few seconds.
 */
import type { Clock } from '../../base/time/clock.ts';
import type { Party } from '../../base/fair-queue.ts';
import { RateLimiter, type Task } from '../../base/rate-limiter.ts';
import { openDeadline } from '../../base/time/deadline.ts';
import { ExpiringMap } from '../../base/expiring-map.ts';
import { SingleFlight } from '../../base/single-flight.ts';

export interface MetadataAnswer {
  readonly status: number;
  /** A flat list of names and values. */
  readonly headers: readonly string[];
  readonly body: Buffer;
}

export interface MetadataCall {
  /** Equal for calls with the same answer; undefined for a call that must not be shared. */
  readonly sharedKey: string | undefined;
  /** Its answer may be kept for a few seconds. */
  readonly isKept: boolean;
  readonly party: Party;
  /** The signal aborts when the time is up. */
  readonly send: (signal: AbortSignal) => Promise<MetadataAnswer>;
}

/** The call did not get a turn in time. */
export class NoTurnError extends Error {}

const budget = { maxConcurrent: 4, maxPerSec: 5, maxQueued: 5_000 };
const keptMs = 3_000;
/** 4 MB at most: the document of a node has some kilobytes, with user data 64 KB. */
const maxKept = 64;
const maxKeptBytes = 64 * 1024;

export class MetadataCalls implements Disposable {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #limiter: RateLimiter;
  readonly #shared = new SingleFlight<MetadataAnswer>();
  /** Of shared calls that have not ended, by key. */
  readonly #tasks = new Map<string, Task>();
  readonly #kept: ExpiringMap<MetadataAnswer>;

  /** @param timeoutMs of one call, including the wait for its turn. */
  constructor(clock: Clock, timeoutMs: number) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#limiter = new RateLimiter({ clock, ...budget });
    this.#kept = new ExpiringMap(clock, maxKept);
  }

  /**
   * The call continues when its caller disconnects: others may share it, and its place in the queue
   * counts as the caller's share.
   *
   * @throws NoTurnError, or what `send` rejects with.
   */
  make(call: MetadataCall): Promise<MetadataAnswer> {
    const { sharedKey, party } = call;
    if (sharedKey === undefined) return this.#send(call);
    const kept = this.#kept.get(sharedKey);
    if (kept !== undefined) return Promise.resolve(kept);
    const task = this.#tasks.get(sharedKey);
    if (task !== undefined) this.#limiter.hurry(task, party);
    return this.#shared.share(sharedKey, () => this.#send(call));
  }

  [Symbol.dispose](): void {
    this.#limiter[Symbol.dispose]();
    this.#kept[Symbol.dispose]();
  }

  async #send({ sharedKey, isKept, party, send }: MetadataCall): Promise<MetadataAnswer> {
    using deadline = openDeadline(this.#clock, this.#timeoutMs);
    const { promise: turn, resolve: start, reject } = Promise.withResolvers<void>();
    const task: Task = { start };
    deadline.signal.addEventListener('abort', () => reject(new NoTurnError()));
    if (!this.#limiter.enter(task, party)) throw new NoTurnError();
    if (sharedKey !== undefined) this.#tasks.set(sharedKey, task);
    try {
      await turn;
      const answer = await send(deadline.signal);
      const isSmall = answer.body.byteLength <= maxKeptBytes;
      if (isKept && sharedKey !== undefined && answer.status === 200 && isSmall) {
        this.#kept.set(sharedKey, answer, keptMs);
      }
      return answer;
    } catch (error) {
      if (!deadline.passed || error instanceof NoTurnError) throw error;
      throw new DOMException('the metadata service did not answer in time', 'TimeoutError');
    } finally {
      if (sharedKey !== undefined) this.#tasks.delete(sharedKey);
      this.#limiter.leave(task);
    }
  }
}
