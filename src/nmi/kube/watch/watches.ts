/** The agent's watches: this node's pods and the four custom resources. */
import { keysOf } from '../../../base/keys-of.ts';
import { systemClock, type Clock } from '../../../base/time/clock.ts';
import { Observers } from '../../../cache/index/observers.ts';
import type {
  Binding,
  Exception,
  Identity,
  IdentityGrant,
  ObjectRef,
  ObjectStore,
  Pod,
} from '../../../cache/index/objects.ts';
import { maxExceptionBytes } from './namespace-usage.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  parsePod,
} from './parse.ts';
import type { Log } from '../../../base/log.ts';
import {
  openReflector,
  type Absence,
  type KubeReader,
  type Reflector,
  type ReflectorOptions,
  type ReflectorStats,
  type ReflectorTiming,
} from './reflector.ts';

export type WatchedResource = 'pods' | 'identities' | 'bindings' | 'exceptions' | 'grants';

/**
 * How each kind is taken that the API server refuses to list. Where grants decide, a token without one is refused for
 * good (400), so they are never taken for none by an answer that may pass. Elsewhere the agent serves a cluster in which
 * only its image was replaced: there it has neither the kind of grants nor the right to list them.
 */
export const absences: Readonly<
  Record<WatchedResource, { readonly enforcing: Absence; readonly otherwise: Absence }>
> = {
  pods: { enforcing: 'never', otherwise: 'never' },
  identities: { enforcing: 'never', otherwise: 'never' },
  bindings: { enforcing: 'never', otherwise: 'never' },
  exceptions: { enforcing: 'never', otherwise: 'never' },
  grants: { enforcing: 'confirmed', otherwise: 'presumed' },
};

const group = '/apis/aadpodidentity.k8s.io/v1';

/**
 * How soon new pods are seen after an outage: the longest wait, at most `tcpTimeoutMs` of the
 * client for a running attempt, and a list. Together less than a second, so 1,000 nodes make some
 * 2,700 attempts a second at an unavailable server; from the tenth second of an outage on, ever fewer
 * while no request waits. The other watches wait longer and are woken by this one.
 */
const podTiming = {
  outage: { baseMs: 100, capMs: 500 },
  relistJitterMs: 600,
  // A pod is as large as ten objects of ours.
  relistJitterPerObjectMs: 30,
};

export interface WatchStores {
  readonly pods: ObjectStore<Pod>;
  readonly identities: ObjectStore<Identity>;
  readonly bindings: ObjectStore<Binding>;
  readonly exceptions: ObjectStore<Exception>;
  readonly grants: ObjectStore<IdentityGrant>;
}

export interface WatchesOptions {
  readonly client: KubeReader;
  /** For the pods; default: `client`. */
  readonly podClient?: KubeReader;
  /** Name of the node; its pods are watched. */
  readonly node: string;
  readonly stores: WatchStores;
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Grants decide who gets a token. Default: true. */
  readonly enforcesOwners?: boolean;
  /** Whether a request waits for an object. */
  readonly isAwaited?: () => boolean;
  readonly timing?: Partial<ReflectorTiming>;
}

export interface WatchAge<N extends string = WatchedResource> {
  readonly resource: N;
  /** Time since the last proof that the stored objects are current. */
  readonly stalenessMs: number;
}

/** Some watches, by resource. The caller disposes of the client. */
export interface WatchGroup<N extends string = string> extends AsyncDisposable {
  /** All stores have had a complete list. */
  readonly synced: boolean;
  /** Rejects with an AbortError when disposed before. */
  whenSynced(): Promise<void>;
  /** Resources without a first list, for readiness. */
  unsynced(): readonly string[];
  /** Of all watches, or of one. */
  ages(name?: N): readonly WatchAge<N>[];
  /** An object is missing: silent watches are replaced, or only the named one. */
  checkNow(name?: N): void;
  /** A request begins to wait for an object: the waits that only spare the server end. */
  hurry(): void;
  stats(): Readonly<Record<N, ReflectorStats>>;
}

/** The five watches of an agent. */
export type Watches = WatchGroup<WatchedResource>;

export function openWatches(options: WatchesOptions): Watches {
  const { client, node, stores, log, clock = systemClock, random = Math.random } = options;
  const { podClient = client, isAwaited, enforcesOwners = true } = options;
  const recovery = new Observers();

  function open<T extends ObjectRef>(
    name: WatchedResource,
    spec: Pick<ReflectorOptions<T>, 'path' | 'parse' | 'store'> & Partial<ReflectorOptions<T>>,
    timing?: Partial<ReflectorTiming>,
  ): Reflector {
    const absence = absences[name][enforcesOwners ? 'enforcing' : 'otherwise'];
    const parts = { name, client, clock, random, log, recovery, isAwaited, absence };
    return openReflector({ ...parts, ...spec, timing: { ...timing, ...options.timing } });
  }

  const { pods, identities, bindings, exceptions, grants } = stores;
  // Finished pods keep their address in the status, and accumulate in clusters with many jobs.
  const fieldSelector = `spec.nodeName=${node},status.phase!=Succeeded,status.phase!=Failed`;
  const podSpec = {
    client: podClient,
    path: '/api/v1/pods',
    query: { fieldSelector },
    parse: parsePod,
    store: pods,
    // As JSON, a pod may be nine megabytes.
    listsBy: 'stream' as const,
  };
  const identitySpec = { path: `${group}/azureidentities`, parse: parseIdentity };
  const bindingSpec = { path: `${group}/azureidentitybindings`, parse: parseBinding };
  const exceptionSpec = { path: `${group}/azurepodidentityexceptions`, parse: parseException };
  const maxBytes = maxExceptionBytes;
  const grantSpec = { path: `${group}/azureidentitygrants`, parse: parseIdentityGrant };
  return groupWatches<WatchedResource>({
    pods: open('pods', podSpec, podTiming),
    identities: open('identities', { ...identitySpec, store: identities }),
    bindings: open('bindings', { ...bindingSpec, store: bindings }),
    exceptions: open('exceptions', { ...exceptionSpec, store: exceptions, maxBytes }),
    grants: open('grants', { ...grantSpec, store: grants }),
  });
}

/** Disposes of the reflectors. */
export function groupWatches<N extends string>(
  reflectors: Readonly<Record<N, Reflector>>,
): WatchGroup<N> {
  const all = Object.values<Reflector>(reflectors);
  const names = keysOf(reflectors);
  return {
    get synced() {
      return all.every((reflector) => reflector.synced);
    },
    async whenSynced() {
      await Promise.all(all.map((reflector) => reflector.whenSynced()));
    },
    unsynced: () => names.filter((name) => !reflectors[name].synced),
    ages: (name) =>
      names
        .filter((each) => name === undefined || each === name)
        .map((resource) => ({ resource, stalenessMs: reflectors[resource].stalenessMs })),
    checkNow: (name) => {
      for (const reflector of name === undefined ? all : [reflectors[name]]) reflector.checkNow();
    },
    hurry: () => {
      for (const reflector of all) reflector.hurry();
    },
    stats: () => statsOf(reflectors),
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((reflector) => reflector[Symbol.asyncDispose]()));
    },
  };
}

function statsOf<N extends string>(
  reflectors: Readonly<Record<N, Reflector>>,
): Readonly<Record<N, ReflectorStats>>;
function statsOf(
  reflectors: Readonly<Record<string, Reflector>>,
): Readonly<Record<string, ReflectorStats>> {
  return Object.fromEntries(Object.entries(reflectors).map(([name, each]) => [name, each.stats()]));
}
