/** What the agent watches: this node's pods and the three custom resources, as data. */
import { systemClock, type Clock } from '../../cache/clock.ts';
import type {
  Binding,
  Exception,
  Identity,
  ObjectRef,
  ObjectStore,
  Pod,
} from '../../cache/objects.ts';
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

export type WatchedResource = 'pods' | 'identities' | 'bindings' | 'exceptions';

interface WatchSpec<T> {
  readonly path: string;
  readonly query: (node: string) => Readonly<Record<string, string>>;
  readonly parse: Parse<T>;
}

const group = '/apis/aadpodidentity.k8s.io/v1';
const everything = (): Readonly<Record<string, string>> => ({});

const podSpec: WatchSpec<Pod> = {
  path: '/api/v1/pods',
  // Finished pods keep their address in the status, and pile up in clusters with many jobs.
  query: (node) => ({
    fieldSelector: `spec.nodeName=${node},status.phase!=Succeeded,status.phase!=Failed`,
  }),
  parse: parsePod,
};
const identitySpec: WatchSpec<Identity> = {
  path: `${group}/azureidentities`,
  query: everything,
  parse: parseIdentity,
};
const bindingSpec: WatchSpec<Binding> = {
  path: `${group}/azureidentitybindings`,
  query: everything,
  parse: parseBinding,
};
const exceptionSpec: WatchSpec<Exception> = {
  path: `${group}/azurepodidentityexceptions`,
  query: everything,
  parse: parseException,
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
  stats(): Readonly<Record<WatchedResource, ReflectorStats>>;
}

/** Starts all four at once; `timing.startJitterMs` spreads them. */
export function openWatches(options: WatchesOptions): Watches {
  const { client, node, stores, log, clock = systemClock, random = Math.random } = options;

  function open<T extends ObjectRef>(
    name: WatchedResource,
    spec: WatchSpec<T>,
    store: ObjectStore<T>,
  ): Reflector {
    const { onState, timing } = options;
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
      ...(timing === undefined ? {} : { timing }),
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
