/** Why a pod gets no token, or not the one that its author meant. Pure; scans every object. */
import { fullName } from '../../cache/index/object-name.ts';
import { bindingLabelOf, matchesPod } from '../../cache/index/binding-label.ts';
import { maxBindingsOfLabel, type GrantIndex } from '../../cache/index/grant-index.ts';
import type { Binding, ObjectRef, Pod } from '../../cache/index/objects.ts';
import { normaliseClientId } from '../../cache/index/identifiers.ts';
import { printable } from '../../base/printable.ts';
import type { RefusalReason } from '../base/answers.ts';
import { throttleTexts, type Throttling } from '../callers/throttled-pods.ts';
import type { GrantState } from '../grants/decide-grant.ts';
import { isSlip, nearestIn } from '../grants/near-names.ts';
import { misnamedLabel, wordsOfUnowned, type Words } from '../grants/refusal-text.ts';
import { unownedOfPod } from '../grants/unowned.ts';
import { createFinding, type Finding, oneFinding } from './finding.ts';
import { findingsOfBinding } from './objects.ts';

export interface RefusedRequest extends Words {
  readonly reason: RefusalReason;
  readonly status: number;
  readonly retryAfterS: number | undefined;
}

/** That the source of an identity refuses it, while cached tokens may last. */
export interface SourceRefusalFacts {
  readonly object: string;
  readonly refusal: RefusedRequest;
  /** Times as texts: the first refusal, the last one, and the end of the cached tokens. */
  readonly since: string;
  readonly last: string;
  readonly until: string;
  readonly leftMs: number;
}

export interface PodFacts {
  readonly pod: Pod;
  readonly refusal: RefusedRequest | undefined;
  /** The identity that a request without a name gets because it is the oldest. */
  readonly oldest: string | undefined;
  /** Undefined without an agent. */
  readonly sources?: readonly SourceRefusalFacts[];
  readonly throttled: readonly Throttling[];
}

type State = Pick<GrantState, 'grants' | 'owners' | 'upstreams' | 'workloadIdentities'>;

const maxNamed = 3;

export function findingsOfPod(facts: PodFacts, state: State): readonly Finding[] {
  const { pod, sources = [], throttled } = facts;
  const object = `Pod ${fullName(pod)}`;
  return [
    ...ofRefusal(object, facts, state.grants),
    ...sources.map(ofSource),
    ...ofBound(object, facts, state.grants),
    ...ofException(object, pod, state.grants),
    ...ofOwners(pod, state),
    ...throttled.map(({ limit, count, agoMs }) =>
      createFinding('caller_throttled', {
        object,
        severity: 'warning',
        text: `It ${throttleTexts[limit]}, ${count} times in the last minutes, the last time ${Math.round(agoMs / 1_000)} s ago.`,
      }),
    ),
  ];
}

function ofRefusal(
  object: string,
  { pod, refusal }: PodFacts,
  index: GrantIndex,
): readonly Finding[] {
  if (refusal === undefined) return [];
  const { reason, text, fix, status, retryAfterS } = refusal;
  const retry = retryAfterS === undefined ? '' : `, Retry-After ${retryAfterS}s`;
  const details = nearMisses(pod, index);
  const answer = `(HTTP ${status}${retry})`;
  // Of objects that are applied together, any may arrive first.
  if (reason.endsWith('_pending')) {
    const inTime = `${text} It may be on its way. ${answer}`;
    return oneFinding(reason, { object, text: inTime, fix, details, severity: 'warning' });
  }
  return oneFinding(reason, { object, text: `${text} ${answer}`, fix, details });
}

/** As soon as somebody should look, a warning; until then there is time. */
const soonMs = 3_600_000;

function ofSource({ object, refusal, since, last, until, leftMs }: SourceRefusalFacts): Finding {
  const { reason, text, fix, status } = refusal;
  const answer = `HTTP ${status}`;
  const effect =
    leftMs <= 0
      ? `No cached token is left: pods get ${answer}.`
      : `Cached tokens are valid until ${until}, then pods get ${answer}.`;
  return createFinding(reason, {
    object,
    text: `${text} ${effect}`,
    fix,
    details: [`Refused since ${since}, the last time at ${last}.`],
    severity: leftMs <= 0 ? 'error' : leftMs < soonMs ? 'warning' : 'info',
  });
}

function nearMisses(pod: Pod, index: GrantIndex): readonly string[] {
  const grants = index.grantsOf(pod.uid);
  switch (grants?.kind) {
    case 'no-label': {
      const meant = misnamedLabel(pod.labels);
      return meant === undefined ? [] : [`The pod has the label ${printable(meant)}.`];
    }
    case 'no-binding':
      return nearBindings(pod, grants.label, index);
    case 'no-identity':
      return grants.bindings.slice(0, maxNamed).flatMap((each) => nearIdentities(each, index));
    default:
      return [];
  }
}

function ofBound(object: string, { pod, oldest }: PodFacts, index: GrantIndex): readonly Finding[] {
  const grants = index.grantsOf(pod.uid);
  if (grants?.kind !== 'bound') return [];
  const { identities, byClientId, danglingBindings, label } = grants;
  const surplusBindings = index.surplusBindings(pod.namespace, label);
  return [
    ...(surplusBindings === 0
      ? []
      : oneFinding('selector_unusable', {
          object,
          severity: 'warning',
          text: `Of the AzureIdentityBindings with the selector "${printable(label)}" the ${maxBindingsOfLabel} oldest count; ${surplusBindings} more do not.`,
          fix: 'Delete some of them.',
        })),
    ...danglingBindings.flatMap((binding) => ofDangling(binding, index)),
    ...identities.slice(0, maxBindingsOfLabel).flatMap((identity) => {
      const first = byClientId.get(normaliseClientId(identity.clientId));
      if (first === undefined || first === identity) return [];
      const text = `AzureIdentity ${identity.name} has the client id of ${first.name}, which is older and answers in its place.`;
      return oneFinding('client_id_twice', { object, text });
    }),
    ...(oldest === undefined
      ? []
      : oneFinding('identity_by_age', {
          object,
          text: `${identities.length} identities are bound, and a request that names none gets the oldest, ${oldest}.`,
        })),
  ];
}

function ofDangling(binding: Binding, index: GrantIndex): readonly Finding[] {
  const { namespace, identityName } = binding;
  const meant = nearestIn(namespace, identityName, index.allIdentities(), ({ name }) => name);
  return findingsOfBinding(binding, { ok: true, value: binding }, { meant }).map((finding) => ({
    ...finding,
    severity: 'warning',
    details: nearIdentities(binding, index),
  }));
}

function ofException(object: string, pod: Pod, index: GrantIndex): readonly Finding[] {
  const grants = index.grantsOf(pod.uid);
  if (grants?.kind !== 'exception' || (bindingLabelOf(pod) ?? '') === '') return [];
  if (![...index.allBindings()].some((binding) => matchesPod(binding, pod))) return [];
  const { name } = grants.exception;
  return oneFinding('exception_before_binding', {
    object,
    text: `AzurePodIdentityException ${name} matches the pod and comes first: its requests are for the identities of the node, and its binding does not count.`,
    fix: `Remove the label that ${name} names from the pod, or change the exception.`,
  });
}

/** What `enforce` would refuse. A cluster without any grant has no use for it. */
function ofOwners(pod: Pod, state: State): readonly Finding[] {
  if (state.owners.mode !== 'warn' || !state.owners.hasGrants) return [];
  return unownedOfPod(pod, state)
    .slice(0, maxNamed)
    .map(([, unowned]) =>
      createFinding('identity_not_owned', {
        object: `${unowned.kind} ${pod.namespace}/${unowned.name}`,
        severity: 'info',
        ...wordsOfUnowned(unowned, pod),
        details: ['--identity-owners=warn serves it.'],
      }),
    );
}

/** Bindings that nearly match, with what keeps each from it. */
function nearBindings(pod: Pod, label: string, index: GrantIndex): readonly string[] {
  const slips: Binding[] = [];
  const elsewhere: Binding[] = [];
  let inNamespace = 0;
  for (const binding of index.allBindings()) {
    if (binding.namespace === pod.namespace) {
      inNamespace++;
      if (isSlip(binding.selector, label)) slips.push(binding);
    } else if (binding.selector === label) {
      elsewhere.push(binding);
    }
  }
  return [
    ...nameFew(slips).map(
      ({ name, selector }) =>
        `AzureIdentityBinding ${name} has the selector "${printable(selector)}".`,
    ),
    ...nameFew(elsewhere).map(
      (binding) =>
        `AzureIdentityBinding ${fullName(binding)} has that selector, but only bindings in namespace ${pod.namespace} count for this pod.`,
    ),
    ...(inNamespace > 0 ? [] : [`Namespace ${pod.namespace} has no AzureIdentityBinding at all.`]),
  ];
}

export function nearIdentities(
  { namespace, identityName }: Binding,
  index: Pick<GrantIndex, 'allIdentities'>,
): readonly string[] {
  const slips: ObjectRef[] = [];
  const elsewhere: ObjectRef[] = [];
  for (const identity of index.allIdentities()) {
    if (identity.namespace === namespace) {
      if (isSlip(identity.name, identityName)) slips.push(identity);
    } else if (identity.name === identityName) {
      elsewhere.push(identity);
    }
  }
  return [
    ...nameFew(slips).map(({ name }) => `The one there is called "${name}".`),
    ...nameFew(elsewhere).map(
      (identity) =>
        `There is one in namespace ${identity.namespace}, but only one in namespace ${namespace} counts.`,
    ),
  ];
}

function nameFew<T extends ObjectRef>(objects: readonly T[]): readonly T[] {
  // No mutation: no two objects have the same name.
  return objects.toSorted((a, b) => (fullName(a) < fullName(b) ? -1 : 1)).slice(0, maxNamed);
}
