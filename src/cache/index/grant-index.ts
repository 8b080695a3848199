/**
 * What each pod of this node may be, worked out when an object changes and never when a request
 * comes.
 *
 * 1. Everything is within one namespace: pod, binding, identity and exception.
 * 2. A pod's binding label equals the selector of a binding byte for byte. An absent or empty label
 *    matches nothing and neither does an empty selector: otherwise one careless binding would give
 *    its identity to every pod without the label.
 *    A binding that names a service account is for pods under that one alone.
 * 3. An exception matches a pod by any one of its labels, the key exactly and the value whatever
 *    its case, and wins over bindings. One without labels matches nothing.
 *    Of the bindings that match a label the 200 oldest count, which is what the old system took too:
 *    who may create bindings decides how many there are.
 * 4. Where several match, order is by creation and then name for identities, by name for the rest,
 *    never by arrival.
 *
 * Pods of one namespace and label value share a claim, where a binding names a service account those
 * under the same one, so a change of a binding or identity costs one claim and a glance at the pods
 * that carry the label; nothing else is visited.
 */
import { objectKey } from './object-name.ts';
import { NamedStore } from './object-store.ts';
import { bindingLabelOf } from './binding-label.ts';
import { Groups } from './multimap.ts';
import { normaliseClientId, normaliseResourceId } from './identifiers.ts';
import { ignoreListenerError, Listeners } from './observers.ts';
import type { Binding, Exception, Identity, ObjectStore, Pod } from './objects.ts';
import type { PodIndex } from './pod-index.ts';

export { bindingLabel } from './binding-label.ts';

/** A pod with at least one identity. */
export interface BoundGrants {
  readonly kind: 'bound';
  readonly label: string;
  /** Never empty; oldest creation first, then by name. */
  readonly identities: readonly Identity[];
  /** By `normaliseClientId`; on duplicates the first of `identities`. No empty key. */
  readonly byClientId: ReadonlyMap<string, Identity>;
  /** By `normaliseResourceId`; on duplicates the first of `identities`. No empty key. */
  readonly byResourceId: ReadonlyMap<string, Identity>;
  /** Those whose identity exists, by name. */
  readonly bindings: readonly Binding[];
  /** Those that match as well but name an identity that does not exist, by name. */
  readonly danglingBindings: readonly Binding[];
  /** How many bindings of the label do not count, since there are too many. */
  readonly surplusBindings: number;
}

export type PodGrants =
  | { readonly kind: 'exception'; readonly exception: Exception }
  | BoundGrants
  | { readonly kind: 'no-label' }
  | {
      readonly kind: 'no-binding';
      readonly label: string;
      /** Those that match but are for pods under another service account, by name. */
      readonly foreignBindings: readonly Binding[];
      /** The later of the pod's creation and of when it got the label. */
      readonly sinceWallMs: number;
    }
  | {
      readonly kind: 'no-identity';
      readonly label: string;
      /** Never empty; by name. None of their identities exists. */
      readonly bindings: readonly Binding[];
      /** The latest of the pod's creation, its label and the newest binding's creation. */
      readonly sinceWallMs: number;
    };

export interface GrantIndexStats {
  readonly identities: number;
  readonly bindings: number;
  readonly exceptions: number;
  readonly boundPods: number;
  /** Label values, of pods stored now, that were worked out. */
  readonly claims: number;
  /** How many times a pod's grants were worked out, ever. */
  readonly recomputed: number;
}

/** A pod as last seen. */
interface Member {
  pod: Pod;
  /** Names its claim; `undefined` when its label is absent or empty. */
  claimKey: string | undefined;
  grants: PodGrants;
}

/** What a label value of a namespace stands for, whichever pod carries it. */
type Claim =
  | BoundGrants
  | { readonly kind: 'unbound'; readonly foreignBindings: readonly Binding[] }
  | {
      readonly kind: 'dangling';
      readonly bindings: readonly Binding[];
      readonly newestBindingWallMs: number;
    };

const noLabel: PodGrants = { kind: 'no-label' };
/** Of one label in one namespace. */
export const maxBindingsOfLabel = 200;
const unbound: Claim = { kind: 'unbound', foreignBindings: [] };

/** What a label value of a namespace stands for, by the service account of the pod. */
interface LabelClaims {
  /** Those that match the label and count, by name. */
  readonly matching: readonly Binding[];
  readonly surplus: number;
  /** Under the empty name where no binding asks for a service account. */
  readonly byAccount: Map<string, Claim>;
  readonly asksForAccount: boolean;
}

export class GrantIndex {
  readonly #pods: PodIndex;
  readonly #listeners: Listeners;

  readonly #members = new Map<string, Member>();
  readonly #membersByClaim = new Groups<Member>();
  readonly #membersByNamespace = new Groups<Member>();
  readonly #bindingsByClaim = new Groups<Binding>();
  readonly #bindingsByIdentity = new Groups<Binding>();
  readonly #exceptionsByNamespace = new Groups<Exception>();
  /** Worked out when first needed, dropped when an object they rest on changes. */
  readonly #claims = new Map<string, LabelClaims>();
  readonly #touched = new Set<Member>();

  readonly #bindings = new NamedStore<Binding>({
    changed: (before, after) => this.#bindingChanged(before, after),
    settled: () => this.#settle('grants'),
  });
  readonly #identities = new NamedStore<Identity>({
    changed: (before, after) => this.#identityChanged(before, after),
    settled: () => this.#settle('grants'),
  });
  readonly #exceptions = new NamedStore<Exception>({
    changed: (before, after) => this.#exceptionChanged(before, after),
    settled: () => this.#settle('grants'),
  });

  #generation = 0;
  #recomputed = 0;

  /** Follows `pods` from now on; whoever needs both listens here. */
  constructor(pods: PodIndex, onListenerError: (error: unknown) => void = ignoreListenerError) {
    this.#pods = pods;
    this.#listeners = new Listeners(onListenerError);
    this.#podsChanged([...pods.all()].map(({ uid }) => uid));
    pods.onChange((uids) => this.#podsChanged(uids));
  }

  get bindings(): ObjectStore<Binding> {
    return this.#bindings;
  }

  get identities(): ObjectStore<Identity> {
    return this.#identities;
  }

  get exceptions(): ObjectStore<Exception> {
    return this.#exceptions;
  }

  /** Grows with every change of a pod or of any pod's grants. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * What the pod may be, or `undefined` when no such pod is stored. O(1), without allocation; the
   * same object until the pod's grants change.
   */
  grantsOf(podUid: string): PodGrants | undefined {
    return this.#members.get(podUid)?.grants;
  }

  /** Every binding of the cluster, for whoever looks for what is nearly right. */
  allBindings(): Iterable<Binding> {
    return this.#bindings.all();
  }

  /** Every identity of the cluster. */
  allIdentities(): Iterable<Identity> {
    return this.#identities.all();
  }

  /**
   * Calls `listener` once after each step that changed a pod (its address included) or any pod's
   * grants, when both indexes already give the new answer. The returned function unsubscribes.
   */
  onChange(listener: () => void): () => void {
    return this.#listeners.add(listener);
  }

  /** Counted when asked: O(pods). */
  get stats(): GrantIndexStats {
    let boundPods = 0;
    for (const { grants } of this.#members.values()) if (grants.kind === 'bound') boundPods++;
    return {
      identities: this.#identities.size,
      bindings: this.#bindings.size,
      exceptions: this.#exceptions.size,
      boundPods,
      claims: this.#claims.size,
      recomputed: this.#recomputed,
    };
  }

  /** Looks at these alone: a node has hundreds of pods, and nearly every event is about one. */
  #podsChanged(uids: readonly string[]): void {
    for (const uid of uids) {
      const member = this.#members.get(uid);
      if (member === undefined || this.#pods.byUid(uid) !== undefined) continue;
      this.#members.delete(uid);
      this.#detach(member);
    }
    for (const uid of uids) {
      const pod = this.#pods.byUid(uid);
      const previous = this.#members.get(uid);
      if (pod === undefined || previous?.pod === pod) continue;
      if (previous?.pod.namespace === pod.namespace) {
        this.#update(previous, pod);
        continue;
      }
      if (previous !== undefined) this.#detach(previous);
      const member = createMember(pod, previous?.grants ?? noLabel);
      this.#members.set(uid, member);
      this.#attach(member);
    }
    this.#settle('pods');
  }

  /** Stays where it was, but for its claim when its label is another. */
  #update(member: Member, pod: Pod): void {
    const claimKey = claimKeyOf(pod);
    member.pod = pod;
    this.#touched.add(member);
    if (claimKey === member.claimKey) return;
    this.#leaveClaim(member);
    member.claimKey = claimKey;
    if (claimKey !== undefined) this.#membersByClaim.add(claimKey, member);
  }

  #attach(member: Member): void {
    this.#membersByNamespace.add(member.pod.namespace, member);
    if (member.claimKey !== undefined) this.#membersByClaim.add(member.claimKey, member);
    this.#touched.add(member);
  }

  #detach(member: Member): void {
    this.#membersByNamespace.delete(member.pod.namespace, member);
    this.#leaveClaim(member);
  }

  #leaveClaim(member: Member): void {
    const { claimKey } = member;
    if (claimKey === undefined) return;
    this.#membersByClaim.delete(claimKey, member);
    if (!this.#membersByClaim.has(claimKey)) this.#claims.delete(claimKey);
  }

  #bindingChanged(before: Binding | undefined, after: Binding | undefined): void {
    if (before !== undefined && before.selector !== '') {
      const claimKey = objectKey(before.namespace, before.selector);
      this.#bindingsByClaim.delete(claimKey, before);
      this.#bindingsByIdentity.delete(objectKey(before.namespace, before.identityName), before);
      this.#touchClaim(claimKey);
    }
    if (after !== undefined && after.selector !== '') {
      const claimKey = objectKey(after.namespace, after.selector);
      this.#bindingsByClaim.add(claimKey, after);
      this.#bindingsByIdentity.add(objectKey(after.namespace, after.identityName), after);
      this.#touchClaim(claimKey);
    }
  }

  #identityChanged(before: Identity | undefined, after: Identity | undefined): void {
    const identity = after ?? before;
    if (identity === undefined) return;
    const key = objectKey(identity.namespace, identity.name);
    for (const binding of this.#bindingsByIdentity.of(key)) {
      this.#touchClaim(objectKey(binding.namespace, binding.selector));
    }
  }

  #exceptionChanged(before: Exception | undefined, after: Exception | undefined): void {
    for (const exception of [before, after]) {
      if (exception === undefined) continue;
      if (exception === before) this.#exceptionsByNamespace.delete(exception.namespace, exception);
      else this.#exceptionsByNamespace.add(exception.namespace, exception);
      for (const member of this.#membersByNamespace.of(exception.namespace)) {
        if (isExcepted(member.pod, exception)) this.#touched.add(member);
      }
    }
  }

  #touchClaim(claimKey: string): void {
    this.#claims.delete(claimKey);
    for (const member of this.#membersByClaim.of(claimKey)) this.#touched.add(member);
  }

  /** Ends a step: works out what it touched, then tells, so that nobody sees half a step. */
  #settle(what: 'pods' | 'grants'): void {
    let changed = what === 'pods';
    for (const member of this.#touched) {
      const grants = this.#compute(member);
      this.#recomputed++;
      if (isSame(grants, member.grants)) continue;
      member.grants = grants;
      changed = true;
    }
    this.#touched.clear();
    if (!changed) return;
    this.#generation++;
    this.#listeners.notify();
  }

  #compute({ pod, claimKey }: Member): PodGrants {
    const exception = this.#exceptionFor(pod);
    if (exception !== undefined) return { kind: 'exception', exception };
    if (claimKey === undefined) return noLabel;

    const label = bindingLabelOf(pod) ?? '';
    const claim = this.#claim(claimKey, pod, label);
    if (claim.kind === 'bound') return claim;
    const labelledWallMs = Math.max(pod.createdAtWallMs, this.#pods.labelledSinceWallMs(pod.uid));
    if (claim.kind === 'unbound') {
      const { foreignBindings } = claim;
      return { kind: 'no-binding', label, foreignBindings, sinceWallMs: labelledWallMs };
    }
    const sinceWallMs = Math.max(labelledWallMs, claim.newestBindingWallMs);
    return { kind: 'no-identity', label, bindings: claim.bindings, sinceWallMs };
  }

  #exceptionFor(pod: Pod): Exception | undefined {
    let chosen: Exception | undefined;
    for (const exception of this.#exceptionsByNamespace.of(pod.namespace)) {
      if (chosen !== undefined && chosen.name < exception.name) continue;
      if (isExcepted(pod, exception)) chosen = exception;
    }
    return chosen;
  }

  #claim(claimKey: string, pod: Pod, label: string): Claim {
    const claims = this.#claims.get(claimKey) ?? this.#createClaims(claimKey);
    const account = claims.asksForAccount ? pod.serviceAccount : '';
    const known = claims.byAccount.get(account);
    if (known !== undefined) return known;
    const claim = this.#createClaim(claims, pod, label);
    claims.byAccount.set(account, claim);
    return claim;
  }

  #createClaims(claimKey: string): LabelClaims {
    const all = [...this.#bindingsByClaim.of(claimKey)];
    const matching = oldest(all, maxBindingsOfLabel).sort(byName);
    const surplus = all.length - matching.length;
    const asksForAccount = matching.some(({ serviceAccount }) => serviceAccount !== '');
    const claims = { matching, surplus, asksForAccount, byAccount: new Map<string, Claim>() };
    this.#claims.set(claimKey, claims);
    return claims;
  }

  #createClaim(
    { matching: ofLabel, surplus }: LabelClaims,
    { namespace, serviceAccount }: Pod,
    label: string,
  ): Claim {
    const matching = ofLabel.filter((each) => ['', serviceAccount].includes(each.serviceAccount));
    if (matching.length === 0) {
      return ofLabel.length === 0 ? unbound : { kind: 'unbound', foreignBindings: ofLabel };
    }

    const identities = new Set<Identity>();
    const bindings: Binding[] = [];
    const danglingBindings: Binding[] = [];
    for (const binding of matching) {
      const identity = this.#identities.get(namespace, binding.identityName);
      if (identity !== undefined) identities.add(identity);
      (identity === undefined ? danglingBindings : bindings).push(binding);
    }
    if (identities.size > 0) {
      const bound = createBound(label, [...identities].sort(byAge), bindings, danglingBindings);
      return { ...bound, surplusBindings: surplus };
    }
    let newestBindingWallMs = 0;
    for (const { createdAtWallMs } of matching) {
      newestBindingWallMs = Math.max(newestBindingWallMs, createdAtWallMs);
    }
    return { kind: 'dangling', bindings: matching, newestBindingWallMs };
  }
}

function createMember(pod: Pod, grants: PodGrants): Member {
  return { pod, claimKey: claimKeyOf(pod), grants };
}

function claimKeyOf(pod: Pod): string | undefined {
  const label = bindingLabelOf(pod) ?? '';
  return label === '' ? undefined : objectKey(pod.namespace, label);
}

function createBound(
  label: string,
  identities: readonly Identity[],
  bindings: readonly Binding[],
  danglingBindings: readonly Binding[],
): Omit<BoundGrants, 'surplusBindings'> {
  const byClientId = new Map<string, Identity>();
  const byResourceId = new Map<string, Identity>();
  for (const identity of identities) {
    setFirst(byClientId, normaliseClientId(identity.clientId), identity);
    setFirst(byResourceId, normaliseResourceId(identity.resourceId), identity);
  }
  return {
    kind: 'bound',
    label,
    identities,
    byClientId,
    byResourceId,
    bindings,
    danglingBindings,
  };
}

function setFirst(map: Map<string, Identity>, key: string, identity: Identity): void {
  if (key !== '' && !map.has(key)) map.set(key, identity);
}

/** Own keys only: a label may be called `constructor`. */
function isExcepted(pod: Pod, exception: Exception): boolean {
  for (const [key, value] of Object.entries(exception.podLabels)) {
    if (!Object.hasOwn(pod.labels, key)) continue;
    if (pod.labels[key]?.toLowerCase() === value.toLowerCase()) return true;
  }
  return false;
}

function isSame(a: PodGrants, b: PodGrants): boolean {
  if (a === b) return true;
  if (a.kind === 'exception' && b.kind === 'exception') return a.exception === b.exception;
  if (a.kind === 'bound' && b.kind === 'bound') {
    // Worked out anew for a binding that is for pods under another service account.
    const isSameIdentities = a.label === b.label && areSame(a.identities, b.identities);
    const isSameBindings =
      a.surplusBindings === b.surplusBindings && areSame(a.bindings, b.bindings);
    return isSameIdentities && isSameBindings && areSame(a.danglingBindings, b.danglingBindings);
  }
  if (a.kind === 'no-binding' && b.kind === 'no-binding') {
    const isSameTime = a.sinceWallMs === b.sinceWallMs;
    return a.label === b.label && isSameTime && areSame(a.foreignBindings, b.foreignBindings);
  }
  if (a.kind === 'no-identity' && b.kind === 'no-identity') {
    const isSameTime = a.sinceWallMs === b.sinceWallMs;
    return a.label === b.label && isSameTime && areSame(a.bindings, b.bindings);
  }
  return false;
}

function areSame(a: readonly object[], b: readonly object[]): boolean {
  return a === b || (a.length === b.length && a.every((each, index) => each === b[index]));
}

/** By code unit, not by locale: the same order on every node. */
function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  if (a.name === b.name) return 0;
  return a.name < b.name ? -1 : 1;
}

interface Aged {
  readonly name: string;
  readonly createdAtWallMs: number;
}

function byAge(a: Aged, b: Aged): number {
  return a.createdAtWallMs - b.createdAtWallMs || byName(a, b);
}

/** In one pass, however many there are: the rest is not sorted. */
function oldest<T extends Aged>(all: readonly T[], count: number): T[] {
  if (all.length <= count) return [...all];
  const chosen: T[] = [];
  for (const each of all) {
    const last = chosen[count - 1];
    if (last !== undefined && byAge(last, each) <= 0) continue;
    if (last !== undefined) chosen.pop();
    const place = chosen.findLastIndex((other) => byAge(other, each) <= 0);
    chosen.splice(place + 1, 0, each);
  }
  return chosen;
}
