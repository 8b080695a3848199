/**
 * The objects of the API server at each time, and so the identities to which a pod may have been
 * entitled. Every kind of object has its own watch: the agent may have new objects of one kind and
 * old ones of another, so any version of one kind goes with any of another.
 */
import type { FakeKubeStore } from '../../../lab/fakes/kube/store.ts';
import type {
  AzureIdentityBindingManifest,
  AzureIdentityManifest,
  AzurePodIdentityExceptionManifest,
  PodManifest,
} from '../../../lab/fakes/kube/manifests.ts';

/** Since when the agent's state is surely no older, and the time of the last decision. */
export interface Window {
  readonly objectsFromMs: number;
  readonly exceptionsFromMs: number;
  readonly untilMs: number;
}

/** The lab's names of identities. */
export interface KnownIdentities {
  /** By client id. */
  readonly byClientId: ReadonlyMap<string, string>;
  /** The identities that the node's metadata service may give to an excepted pod. */
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
  /** Changes of objects that affect decisions; Secrets are not among them. */
  changes = 0;

  /** @param store must still be empty of such objects. */
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

  /** Pods that the agent may have seen at the address. */
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

  /**
   * The identity that the one pod at the address gets now if it names none; undefined if refused.
   */
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

/** The agent watches no other pods. */
function isLive(phase: string): boolean {
  return phase !== 'Succeeded' && phase !== 'Failed';
}

function byAge({ metadata: a }: AzureIdentityManifest, { metadata: b }: AzureIdentityManifest) {
  const difference = Date.parse(a.creationTimestamp) - Date.parse(b.creationTimestamp);
  return difference === 0 ? Number(a.name > b.name) - Number(a.name < b.name) : difference;
}
