/**
 * What one of several API servers knows: each change reaches its memory some time after etcd has it. It
 * answers watches, and lists from memory; other reads and all writes go to etcd, as in the real server.
 */
import type { Clock } from '../../../src/base/time/clock.ts';
import type { FakeObject } from './resources.ts';
import type { FakeChange, FakeKubeStore, FakeView } from './store.ts';

export interface LateView extends FakeView {
  /** Calls back once it knows all that etcd has now. */
  whenCurrent(work: () => void): void;
  /** Learns everything at once. */
  catchUp(): void;
}

export function createLateView(store: FakeKubeStore, clock: Clock, lagMs: () => number): LateView {
  const unknown: { readonly dueMs: number; readonly change: FakeChange }[] = [];
  const listeners = new Set<(change: FakeChange) => void>();
  const waiting: { readonly version: number; readonly work: () => void }[] = [];
  let disarm = (): void => undefined;

  store.subscribe((change) => {
    unknown.push({ dueMs: clock.monotonicMs() + lagMs(), change });
    if (unknown.length === 1) learn();
  });

  const versionNow = (): number => (unknown[0]?.change.version ?? store.version + 1) - 1;

  function learn(untilMs = clock.monotonicMs()): void {
    for (let [next] = unknown; next !== undefined && next.dueMs <= untilMs; [next] = unknown) {
      unknown.shift();
      for (const listener of [...listeners]) listener(next.change);
    }
    const current = waiting.filter(({ version }) => version <= versionNow());
    for (const each of current) {
      waiting.splice(waiting.indexOf(each), 1);
      each.work();
    }
    disarm();
    const [next] = unknown;
    if (next !== undefined)
      disarm = clock.schedule(next.dueMs - clock.monotonicMs(), () => learn());
  }

  return {
    get version() {
      return versionNow();
    },
    list(resource) {
      const known = new Map(store.list(resource).map((object) => [nameOf(object), object]));
      for (const { change } of unknown.toReversed()) {
        const { current, previous } = change;
        if (change.resource !== resource) continue;
        if (current !== undefined) known.delete(nameOf(current));
        if (previous !== undefined) known.set(nameOf(previous), previous);
      }
      return [...known]
        .toSorted(([one], [other]) => (one < other ? -1 : 1))
        .map(([, each]) => each);
    },
    since: (version) => store.since(version)?.filter((change) => change.version <= versionNow()),
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
    whenCurrent(work) {
      if (unknown.length === 0) work();
      else waiting.push({ version: store.version, work });
    },
    catchUp: () => learn(Infinity),
  };
}

function nameOf({ metadata }: FakeObject): string {
  return `${metadata.namespace ?? ''}/${metadata.name}`;
}
