/** One watch connection of the fake Kubernetes API. */
import type { ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import type { Clock } from '../../../src/base/time/clock.ts';
import type { FaultPlan } from './faults.ts';
import { apiVersionOf, type FakeObject, type FakeResource } from './resources.ts';
import type { Matches } from './selectors.ts';
import { withVersion, type FakeChange, type FakeView } from './store.ts';

export interface FakeWatch {
  readonly plural: string;
  /** Either side has ended the stream. */
  readonly ended: boolean;
  /** Ends the stream cleanly, without a last bookmark. */
  close(): void;
  /** Sends nothing more and does not close. */
  mute(): void;
  /** Writes raw bytes into the stream. */
  inject(text: string): void;
}

export interface FakeWatchOptions {
  readonly response: ServerResponse;
  readonly store: FakeView;
  readonly resource: FakeResource;
  readonly matches: Matches;
  /** Events after this version; `undefined` starts with all existing objects. */
  readonly from: number | undefined;
  /** A bookmark marks the end of the existing objects. */
  readonly marksInitialEvents: boolean;
  /** In members, each as soon as there is nothing more to send: as Kubernetes from 1.37 on. */
  readonly isCompressed: boolean;
  readonly bookmarkEveryMs: number | undefined;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly faults: FaultPlan;
  readonly onEnd: (watch: FakeWatch) => void;
}

interface WatchFrame {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: unknown;
}

/**
 * The event of a change for a watch with this selector: an object that no longer matches is
 * DELETED, one that newly matches is ADDED. A deletion carries the last matching object, with the
 * version of the change.
 */
function frameOf(change: FakeChange, matches: Matches): WatchFrame | undefined {
  const { previous, current, version } = change;
  const before = previous !== undefined && matches(previous);
  if (current !== undefined && matches(current)) {
    return { type: before ? 'MODIFIED' : 'ADDED', object: current };
  }
  return before ? { type: 'DELETED', object: withVersion(previous, version) } : undefined;
}

/** `changes` come after `from`; the caller has checked that they are still in the history. */
export function openFakeWatch(
  options: FakeWatchOptions,
  changes: readonly FakeChange[],
): FakeWatch {
  const { response, store, resource, matches, clock, faults } = options;
  const queue: { readonly dueMs: number; readonly text: string }[] = [];
  const timers = new Set<() => void>();
  let cutAfterBytes = faults.takeCut();
  let muted = false;
  let draining = false;
  let ended = false;

  function later(delayMs: number, work: () => void): void {
    if (ended) return;
    const disarm = clock.schedule(delayMs, () => {
      timers.delete(disarm);
      work();
    });
    timers.add(disarm);
  }

  const lateMs = (): number =>
    faults.delayEventsMs + (faults.delayKindsMs.get(resource.plural) ?? 0);

  function send(frames: readonly WatchFrame[]): void {
    const dueMs = clock.monotonicMs() + lateMs();
    for (const frame of frames) queue.push({ dueMs, text: `${JSON.stringify(frame)}\n` });
    if (!draining) drain();
  }

  /** In order, regardless of delays: a bookmark must not overtake an event. */
  function drain(): void {
    draining = false;
    const nowMs = clock.monotonicMs();
    const due = queue.findIndex(({ dueMs }) => dueMs > nowMs);
    const texts = queue.splice(0, due < 0 ? queue.length : due).map(({ text }) => text);
    if (texts.length > 0) write(texts.join(''));
    const [next] = queue;
    if (next === undefined) return;
    draining = true;
    later(next.dueMs - nowMs, drain);
  }

  function write(text: string): void {
    if (muted || ended) return;
    const bytes = options.isCompressed ? gzipSync(text, { level: 1 }) : Buffer.from(text);
    if (cutAfterBytes === undefined || bytes.length < cutAfterBytes) {
      if (cutAfterBytes !== undefined) cutAfterBytes -= bytes.length;
      response.write(bytes);
      return;
    }
    const { socket } = response;
    const part = bytes.subarray(0, cutAfterBytes);
    end();
    // Only when the kernel has the bytes: destroySoon() here would drop them.
    response.write(part, () => socket?.destroy());
  }

  function bookmark(): void {
    // The real server sends nothing to a client that is ahead.
    if (store.version < (options.from ?? 0)) return;
    send([bookmarkWith({})]);
  }

  function bookmarkWith(metadata: object): WatchFrame {
    const object: Partial<FakeObject> = {
      kind: resource.kind,
      apiVersion: apiVersionOf(resource),
    };
    return {
      type: 'BOOKMARK',
      object: { ...object, metadata: { resourceVersion: String(store.version), ...metadata } },
    };
  }

  function repeatBookmark(everyMs: number): void {
    later(everyMs, () => {
      bookmark();
      repeatBookmark(everyMs);
    });
  }

  function end(): void {
    if (ended) return;
    ended = true;
    unsubscribe();
    for (const disarm of timers) disarm();
    timers.clear();
    options.onEnd(self);
  }

  function close(): void {
    if (ended || muted) return;
    end();
    response.end();
  }

  const self: FakeWatch = {
    plural: resource.plural,
    get ended() {
      return ended;
    },
    close,
    mute() {
      muted = true;
    },
    inject: write,
  };

  const unsubscribe = store.subscribe((change) => {
    if (change.resource !== resource || change.version <= (options.from ?? 0)) return;
    const frame = frameOf(change, matches);
    if (frame !== undefined) send([frame]);
  });
  response.on('close', end);
  response.writeHead(200, {
    'content-type': 'application/json',
    ...(options.isCompressed ? { 'content-encoding': 'gzip' } : {}),
  });
  response.flushHeaders();

  const existing = options.from === undefined ? store.list(resource).filter(matches) : [];
  const initial = existing.map((object): WatchFrame => ({ type: 'ADDED', object }));
  if (options.marksInitialEvents) {
    initial.push(bookmarkWith({ annotations: { 'k8s.io/initial-events-end': 'true' } }));
  }
  send(initial);
  for (const change of changes) {
    const frame = change.resource === resource ? frameOf(change, matches) : undefined;
    if (frame !== undefined) send([frame]);
  }
  if (options.bookmarkEveryMs !== undefined) repeatBookmark(options.bookmarkEveryMs);
  later(options.timeoutMs, () => {
    if (options.bookmarkEveryMs !== undefined && lateMs() === 0) bookmark();
    close();
  });

  return self;
}
