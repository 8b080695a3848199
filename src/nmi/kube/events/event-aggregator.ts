/**
 * Decides which Events are written, and when: at most one write for each object and kind in ten
 * minutes and at most ten writes a minute. Namespaces take turns, then objects, so one pod delays
 * the Events of another by one each. Pure.
 */
import type { Clock } from '../../../base/time/clock.ts';
import { FairQueue, type Party } from '../../../base/fair-queue.ts';
import type { EventDraft, ObjectReference } from './event.ts';

export const windowMs = 10 * 60_000;

/** How long repetitions are left out. */
function periodOf({ sharedForMs = windowMs }: EventDraft): number {
  return sharedForMs;
}

/** One kind of Event of one object. */
export interface EventEntry {
  readonly key: string;
  readonly kind: string;
  readonly party: Party;
  readonly draft: EventDraft;
  readonly atWallMs: number;
  /** Once a write was tried. */
  name: string | undefined;
  /** Of writes. */
  failures: number;
  /** Until then, further occurrences are not written. */
  quietUntilMs: number;
}

const budget = { writes: 10, periodMs: 60_000 } as const;
/** With notes of 1 KiB, about 2 MB. */
const maxEntries = 1_024;
/** Per object. A pod that is refused for more reasons has enough to read. */
const maxKinds = 8;

export class EventAggregator {
  readonly #clock: Clock;
  /** By namespace, object and kind. */
  readonly #entries = new Map<string, EventEntry>();
  readonly #queue = new FairQueue<EventEntry>();
  /** Monotonic times of the latest writes, oldest first. */
  readonly #writesAtMs: number[] = [];
  #dropped = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Occurrences without room, and Events that were never written. */
  get dropped(): number {
    return this.#dropped;
  }

  /** As of `EventSink`. @returns whether there is something new to write. */
  record(regarding: ObjectReference, kind: string, draft: () => EventDraft): boolean {
    const { namespace } = regarding;
    const object = `${regarding.kind} ${regarding.uid}`;
    const key = `${namespace} ${object} ${kind}`;
    if (this.#entries.has(key)) return false;
    if (!this.#hasRoom(namespace, object)) {
      this.#dropped += 1;
      return false;
    }
    const drafted = draft();
    const entry: EventEntry = {
      key,
      kind,
      party: { namespace, pod: object },
      draft: drafted,
      atWallMs: this.#clock.wallMs(),
      name: undefined,
      failures: 0,
      quietUntilMs: this.#clock.monotonicMs() + periodOf(drafted),
    };
    this.#entries.set(key, entry);
    this.#queue.add(entry, entry.party);
    return true;
  }

  /** The next entry of the queue, if a write is allowed. Finish it with `done` or `again`. */
  next(): EventEntry | undefined {
    if (this.waitMs !== 0) return undefined;
    const entry = this.#queue.shift();
    if (entry !== undefined) this.#writesAtMs.push(this.#clock.monotonicMs());
    return entry;
  }

  /** Milliseconds until `next` returns an entry; undefined while none waits. */
  get waitMs(): number | undefined {
    if (this.#queue.size === 0) return undefined;
    const nowMs = this.#clock.monotonicMs();
    while ((this.#writesAtMs[0] ?? Infinity) <= nowMs - budget.periodMs) this.#writesAtMs.shift();
    const [oldest] = this.#writesAtMs;
    if (oldest === undefined || this.#writesAtMs.length < budget.writes) return 0;
    return oldest + budget.periodMs - nowMs;
  }

  /** It was written, or given up. */
  done(entry: EventEntry): void {
    entry.quietUntilMs = this.#clock.monotonicMs() + periodOf(entry.draft);
  }

  /** Queues the entry again. */
  again(entry: EventEntry): void {
    this.#queue.add(entry, entry.party);
  }

  /** Forgets entries after their ten minutes, also those that had no turn. */
  sweep(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const entry of [...this.#entries.values()]) {
      if (entry.quietUntilMs > nowMs) continue;
      if (this.#queue.delete(entry)) this.#dropped += 1;
      this.#entries.delete(entry.key);
    }
  }

  /**
   * A namespace may have as many entries as are free: there is always room for one more namespace.
   */
  #hasRoom(namespace: string, object: string): boolean {
    let [ofNamespace, ofObject] = [0, 0];
    for (const { party } of this.#entries.values()) {
      if (party.namespace !== namespace) continue;
      ofNamespace += 1;
      if (party.pod === object) ofObject += 1;
    }
    return ofObject < maxKinds && ofNamespace < maxEntries - this.#entries.size;
  }
}
