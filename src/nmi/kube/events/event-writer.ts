/**
 * Writes Events to the API server, one at a time and independently of requests: `record` stores a
 * few numbers and returns. If the API server is down, slow or refuses, only Events are lost.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../base/time/clock.ts';
import type { Log } from '../../../base/log.ts';
import { samplesBy, type Part } from '../../base/part.ts';
import { startPeriodicJob } from '../../../base/time/periodic-job.ts';
import { backoffMs } from '../api/backoff.ts';
import type { KubeClient } from '../api/client.ts';
import { kubeErrorOfFailure, type KubeError } from '../api/kube-error.ts';
import { EventAggregator, type EventEntry } from './event-aggregator.ts';
import {
  eventNameOf,
  eventPath,
  renderEvent,
  sharedId,
  type EventDraft,
  type ObjectReference,
} from './event.ts';

export interface EventSink {
  /**
   * Never throws, never waits.
   * @param kind distinguishes Events of one object; from a closed list.
   * @param draft is called only for the first occurrence in ten minutes, or its own period.
   * @returns whether it is to be written.
   */
  record(
    regarding: ObjectReference,
    kind: string,
    draft: () => Omit<EventDraft, 'regarding'>,
  ): boolean;
}

export interface EventWriterOptions {
  readonly client: Pick<KubeClient, 'postJson'>;
  readonly clock: Clock;
  /** Name of the node, which identifies the reporting agent. */
  readonly instance: string;
  /** From 0 up to 1. */
  readonly random: () => number;
  readonly log: Log;
}

const backoff = { baseMs: 1_000, capMs: 300_000 } as const;
const sweepMs = 30_000;
const timeoutMs = 10_000;
const maxTries = 3;

/** Transient failures. */
const passing: ReadonlySet<string> = new Set(['THROTTLED', 'NETWORK', 'TIMEOUT', 'UNAUTHORIZED']);

export class EventWriter implements EventSink, Required<Pick<Part, 'samples'>>, Disposable {
  readonly #options: EventWriterOptions;
  readonly #events: EventAggregator;
  readonly #ended = new AbortController();
  readonly #sweeping: Disposable;
  readonly #outcomes = { written: 0, failed: 0 };
  #isWriting = false;
  #disarm: (() => void) | undefined;
  /** Consecutive failures, of any Event. */
  #failures = 0;
  #pausedUntilMs = -Infinity;
  /** Codes of failures that have been logged. */
  readonly #logged = new Set<KubeError['code']>();

  constructor(options: EventWriterOptions) {
    this.#options = options;
    this.#events = new EventAggregator(options.clock);
    this.#sweeping = startPeriodicJob(options.clock, sweepMs, () => {
      this.#events.sweep();
      return sweepMs;
    });
  }

  record(
    regarding: ObjectReference,
    kind: string,
    draft: () => Omit<EventDraft, 'regarding'>,
  ): boolean {
    if (this.#ended.signal.aborted) return false;
    const isNew = this.#events.record(regarding, kind, () => ({ regarding, ...draft() }));
    if (isNew) this.#write();
    return isNew;
  }

  samples(): ReturnType<Required<Part>['samples']> {
    const outcomes = { ...this.#outcomes, dropped: this.#events.dropped };
    return samplesBy('nmi_events_total', 'outcome', outcomes);
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
    this.#sweeping[Symbol.dispose]();
    this.#disarm?.();
  }

  /** Begins the next write, now or as soon as one is allowed. */
  #write(): void {
    if (this.#isWriting || this.#ended.signal.aborted) return;
    this.#disarm?.();
    this.#disarm = undefined;
    const { clock } = this.#options;
    const budgetMs = this.#events.waitMs;
    if (budgetMs === undefined) return;
    const waitMs = Math.max(budgetMs, this.#pausedUntilMs - clock.monotonicMs());
    if (waitMs > 0) {
      this.#disarm = clock.schedule(waitMs, () => this.#write());
      return;
    }
    const entry = this.#events.next();
    if (entry === undefined) return;
    this.#isWriting = true;
    void this.#send(entry).finally(() => {
      this.#isWriting = false;
      this.#write();
    });
  }

  /** Never rejects. */
  async #send(entry: EventEntry): Promise<void> {
    const { client, instance } = this.#options;
    const { draft, atWallMs } = entry;
    const call = { signal: this.#ended.signal, timeoutMs };
    try {
      // All tries have one name.
      entry.name ??= eventNameOf(draft.regarding, idOf(entry));
      const event = renderEvent(draft, { name: entry.name, atWallMs, instance });
      await client.postJson(eventPath(draft.regarding), event, call);
      this.#failures = 0;
      this.#outcomes.written += 1;
      this.#events.done(entry);
    } catch (error) {
      if (!this.#ended.signal.aborted) this.#onFailure(entry, kubeErrorOfFailure(error));
    }
  }

  #onFailure(entry: EventEntry, error: KubeError): void {
    const { clock, random, log } = this.#options;
    // An earlier try that seemed to fail has reached the server, or the agent of another node has
    // written it.
    const isShared = entry.draft.sharedForMs !== undefined;
    if (error.status === 409 && (isShared || entry.failures > 0)) {
      this.#outcomes.written += 1;
      this.#events.done(entry);
      return;
    }
    const { code, status, message } = error;
    if (!this.#logged.has(code)) {
      this.#logged.add(code);
      const { namespace } = entry.draft.regarding;
      log.warn(
        { namespace, code, status, problem: message },
        'failed to write an Event; further failures with this code are counted only',
      );
    }
    const isPassing = passing.has(code) || Number(status) >= 500;
    if (isPassing) {
      this.#failures += 1;
      this.#pausedUntilMs =
        clock.monotonicMs() + backoffMs(backoff, this.#failures, random(), error.retryAfterMs);
      entry.failures += 1;
      if (entry.failures < maxTries) {
        this.#events.again(entry);
        return;
      }
    }
    // Usually only one namespace is affected, which is terminating or has a policy: the others need
    // no pause.
    this.#outcomes.failed += 1;
    this.#events.done(entry);
  }
}

function idOf({ draft, kind, atWallMs }: EventEntry): string {
  const { regarding, sharedForMs } = draft;
  if (sharedForMs === undefined) return randomUUID().replaceAll('-', '').slice(0, 16);
  return sharedId(kind, regarding, Math.floor(atWallMs / sharedForMs));
}
