/**
 * What the API server has had at which time, and so which identities a pod may have been known to be
 * entitled to. Every kind of object has a watch of its own: the agent may know what is new of one
 * kind and what is old of another, so any version of one goes with any of another.
 */
import type { FakeKubeStore } from '../../../lab/fakes/kube/store.ts';
import type {
  AzureIdentityBindingManifest,
  AzureIdentityManifest,
  AzurePodIdentityExceptionManifest,
  PodManifest,
} from '../../../lab/fakes/kube/manifests.ts';

/** From when on what the agent knows is surely no older, and when it was asked for the last time. */
export interface Window {
  readonly objectsFromMs: number;
  readonly exceptionsFromMs: number;
  readonly untilMs: number;
}

/** The lab's names of identities. */
export interface KnownIdentities {
  /** By client id. */
  readonly byClientId: ReadonlyMap<string, string>;
  /** Those that the node's metadata service may give to an excepted pod. */
  readonly ofNode: ReadonlySet<string>;
}

interface Version<T> {
  readonly object: T;
  readonly fromMs: number;
  untilMs: number;
}

class Versions<T> {
  readonly #last = new Map<string, Version<T>>();
  #all: Version<T>[] = [];

  set(key: string, object: T | undefined): void {
    const nowMs = performance.now();
    const last = this.#last.get(key);
    if (last !== undefined) last.untilMs = nowMs;
    this.#last.delete(key);
    if (object === undefined) return;
    const version = { object, fromMs: nowMs, untilMs: Infinity };
    this.#last.set(key, version);
    this.#all.push(version);
  }

  during(fromMs: number, untilMs: number): readonly T[] {
    return this.#all
      .filter((version) => version.fromMs <= untilMs && version.untilMs >= fromMs)
      .map(({ object }) => object);
  }

  forgetBefore(ms: number): void {
    this.#all = this.#all.filter(({ untilMs }) => untilMs >= ms);
  }
}

export class History {
  readonly #known: KnownIdentities;
  readonly #pods = new Versions<PodManifest>();
  readonly #bindings = new Versions<AzureIdentityBindingManifest>();
  readonly #identities = new Versions<AzureIdentityManifest>();
  readonly #exceptions = new Versions<AzurePodIdentityExceptionManifest>();
  /** Of objects that decide; Secrets are not among them. */
  changes = 0;

  /** @param store as long as it is empty of such objects. */
  constructor(store: FakeKubeStore, known: KnownIdentities) {
    this.#known = known;
    store.subscribe(({ resource, previous, current }) => {
      const { namespace = '', name = '' } = (current ?? previous)?.metadata ?? {};
      const versions = this.#versionsOf(resource.kind);
      if (versions === undefined) return;
      this.changes++;
      versions.set(`${namespace}/${name}`, current);
    });
  }

  #versionsOf(kind: string): Versions<unknown> | undefined {
    switch (kind) {
      case 'Pod':
        return this.#pods;
      case 'AzureIdentity':
        return this.#identities;
      case 'AzureIdentityBinding':
        return this.#bindings;
      case 'AzurePodIdentityException':
        return this.#exceptions;
      default:
        return undefined;
    }
  }

  /** Pods that may have been known at the address. */
  podsAt(ip: string, { objectsFromMs, untilMs }: Window): readonly PodManifest[] {
    return this.#pods
      .during(objectsFromMs, untilMs)
      .filter(({ status }) => status.podIP === ip && isLive(status.phase));
  }

  podsNamed(
    namespace: string,
    name: string,
    { objectsFromMs, untilMs }: Window,
  ): readonly PodManifest[] {
    return this.#pods
      .during(objectsFromMs, untilMs)
      .filter(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
  }

  isEntitled(pod: PodManifest, identity: string, window: Window): boolean {
    return this.#isExcepted(pod, identity, window) || this.#isBound(pod, identity, window);
  }

  /** What the one pod at the address gets now when it names nothing; undefined for a refusal. */
  givenAt(ip: string): string | undefined {
    const nowMs = performance.now();
    const now = { objectsFromMs: nowMs, exceptionsFromMs: nowMs, untilMs: nowMs };
    const [pod, ...others] = this.podsAt(ip, now);
    if (pod === undefined || others.length > 0) return undefined;
    if (this.#isExcepted(pod, 'node', now)) return 'node';
    const oldest = this.#identitiesOf(pod, now).toSorted(byAge)[0];
    return this.#known.byClientId.get(oldest?.spec.clientID ?? '');
  }

  #isExcepted({ metadata }: PodManifest, identity: string, window: Window): boolean {
    if (!this.#known.ofNode.has(identity)) return false;
    const labels = Object.entries(metadata.labels ?? {});
    return this.#exceptions
      .during(window.exceptionsFromMs, window.untilMs)
      .some(
        (exception) =>
          exception.metadata.namespace === metadata.namespace &&
          labels.some(([name, value]) => exception.spec.podLabels[name] === value),
      );
  }

  #isBound(pod: PodManifest, identity: string, window: Window): boolean {
    return this.#identitiesOf(pod, window).some(
      ({ spec }) => this.#known.byClientId.get(spec.clientID) === identity,
    );
  }

  #identitiesOf({ metadata }: PodManifest, window: Window): readonly AzureIdentityManifest[] {
    const { namespace, labels = {} } = metadata;
    const { objectsFromMs, untilMs } = window;
    const label = labels['aadpodidbinding'] ?? '';
    const names = this.#bindings
      .during(objectsFromMs, untilMs)
      .filter((each) => each.metadata.namespace === namespace && each.spec.selector === label)
      .map(({ spec }) => spec.azureIdentity);
    return this.#identities
      .during(objectsFromMs, untilMs)
      .filter(
        (each) => each.metadata.namespace === namespace && names.includes(each.metadata.name),
      );
  }

  forgetBefore(ms: number): void {
    for (const versions of [this.#pods, this.#bindings, this.#identities, this.#exceptions]) {
      versions.forgetBefore(ms);
    }
  }
}

/** Others are not among the pods that the agent watches. */
function isLive(phase: string): boolean {
  return phase !== 'Succeeded' && phase !== 'Failed';
}

function byAge({ metadata: a }: AzureIdentityManifest, { metadata: b }: AzureIdentityManifest) {
  const difference = Date.parse(a.creationTimestamp) - Date.parse(b.creationTimestamp);
  return difference === 0 ? Number(a.name > b.name) - Number(a.name < b.name) : difference;
}
