/** What the agent watches: this node's pods and the three custom resources, as data. */
import { systemClock, type Clock } from '../../../cache/clock.ts';
import type {
  Binding,
  Exception,
  Identity,
  ObjectRef,
  ObjectStore,
  Pod,
} from '../../../cache/index/objects.ts';
import { parseBinding, parseException, parseIdentity, parsePod, type Parse } from './parse.ts';
import {
  openReflector,
  type KubeLog,
  type KubeReader,
  type Reflector,
  type ReflectorState,
  type ReflectorStats,
  type ReflectorTiming,
} from './reflector.ts';
import { createServerMemory } from './server-memory.ts';

export type WatchedResource = 'pods' | 'identities' | 'bindings' | 'exceptions';

interface WatchSpec<T> {
  readonly path: string;
  readonly query: (node: string) => Readonly<Record<string, string>>;
  readonly parse: Parse<T>;
  readonly timing: Partial<ReflectorTiming>;
  readonly listsFromMemory: boolean;
}

const group = '/apis/aadpodidentity.k8s.io/v1';
const everything = (): Readonly<Record<string, string>> => ({});

/**
 * How soon an outage is over for new pods: the longest wait, at most `tcpTimeoutMs` of the client
 * for an attempt that was under way, and a list. Within a second, so of 1,000 nodes some 2,700 a
 * second knock at a server that is away. The other watches wait longer and are woken by this one.
 */
const podTiming = { outage: { baseMs: 100, capMs: 500 }, relistJitterMs: 600 };
/** From memory they would come in one piece, of some 20 MB where there are 20,000 bindings. */
const custom = { timing: {}, listsFromMemory: false };

const podSpec: WatchSpec<Pod> = {
  path: '/api/v1/pods',
  // Finished pods keep their address in the status, and pile up in clusters with many jobs.
  query: (node) => ({
    fieldSelector: `spec.nodeName=${node},status.phase!=Succeeded,status.phase!=Failed`,
  }),
  parse: parsePod,
  timing: podTiming,
  listsFromMemory: true,
};
const identitySpec: WatchSpec<Identity> = {
  path: `${group}/azureidentities`,
  query: everything,
  parse: parseIdentity,
  ...custom,
};
const bindingSpec: WatchSpec<Binding> = {
  path: `${group}/azureidentitybindings`,
  query: everything,
  parse: parseBinding,
  ...custom,
};
const exceptionSpec: WatchSpec<Exception> = {
  path: `${group}/azurepodidentityexceptions`,
  query: everything,
  parse: parseException,
  ...custom,
};

export interface WatchStores {
  readonly pods: ObjectStore<Pod>;
  readonly identities: ObjectStore<Identity>;
  readonly bindings: ObjectStore<Binding>;
  readonly exceptions: ObjectStore<Exception>;
}

export interface WatchesOptions {
  readonly client: KubeReader;
  /** Name of the node whose pods are watched. */
  readonly node: string;
  readonly stores: WatchStores;
  readonly log: KubeLog;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly onState?: (resource: WatchedResource, state: ReflectorState) => void;
  readonly timing?: Partial<ReflectorTiming>;
}

/** The four watches. The client stays the caller's. */
export interface Watches extends AsyncDisposable {
  /** All four stores have held a complete list. */
  readonly synced: boolean;
  /** Rejects with an AbortError when disposed before. */
  whenSynced(): Promise<void>;
  /** Those whose first list has not come yet, for readiness. */
  unsynced(): readonly WatchedResource[];
  /** Those of which there was no proof for longer than `limitMs` that they are current. */
  stale(limitMs: number): readonly WatchedResource[];
  /** Since the last proof that it is current. */
  stalenessMs(name: WatchedResource): number;
  /** Somebody misses an object: watches that are silent are looked after, or one of them. */
  doubt(name?: WatchedResource): void;
  stats(): Readonly<Record<WatchedResource, ReflectorStats>>;
}

/** Starts all four at once; `timing.startJitterMs` spreads them. */
export function openWatches(options: WatchesOptions): Watches {
  const { client, node, stores, log, clock = systemClock, random = Math.random } = options;
  const server = createServerMemory();

  function open<T extends ObjectRef>(
    name: WatchedResource,
    spec: WatchSpec<T>,
    store: ObjectStore<T>,
  ): Reflector {
    const { onState } = options;
    return openReflector({
      name,
      path: spec.path,
      query: spec.query(node),
      parse: spec.parse,
      store,
      client,
      clock,
      random,
      log,
      server,
      listsFromMemory: spec.listsFromMemory,
      timing: { ...spec.timing, ...options.timing },
      ...(onState === undefined
        ? {}
        : {
            onState: (state) => {
              onState(name, state);
            },
          }),
    });
  }

  const reflectors = {
    pods: open('pods', podSpec, stores.pods),
    identities: open('identities', identitySpec, stores.identities),
    bindings: open('bindings', bindingSpec, stores.bindings),
    exceptions: open('exceptions', exceptionSpec, stores.exceptions),
  } satisfies Record<WatchedResource, Reflector>;
  const all = Object.values(reflectors);
  const names: readonly WatchedResource[] = ['pods', 'identities', 'bindings', 'exceptions'];

  return {
    get synced() {
      return all.every((reflector) => reflector.synced);
    },
    async whenSynced() {
      await Promise.all(all.map((reflector) => reflector.whenSynced()));
    },
    unsynced: () => names.filter((name) => !reflectors[name].synced),
    stale: (limitMs) => names.filter((name) => reflectors[name].stats().stalenessMs > limitMs),
    stalenessMs: (name) => reflectors[name].stats().stalenessMs,
    doubt: (name) => {
      for (const reflector of name === undefined ? all : [reflectors[name]]) reflector.doubt();
    },
    stats: () => ({
      pods: reflectors.pods.stats(),
      identities: reflectors.identities.stats(),
      bindings: reflectors.bindings.stats(),
      exceptions: reflectors.exceptions.stats(),
    }),
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((reflector) => reflector[Symbol.asyncDispose]()));
    },
  };
}
