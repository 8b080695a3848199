/**
 * Refusals as Events on the pod, for users who may not read the agent's log. Those of an identity by
 * its source are Events on the identity, too (`identity-events.ts`).
 */
import type { ObjectRef, Pod } from '../../cache/index/objects.ts';
import type { Reason, RefusalReason } from '../base/answers.ts';
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { loggableId, loggableResource } from '../../base/log.ts';
import { rowOf } from '../diagnosis/codes.ts';
import type { PodFacts } from '../grants/grant.ts';
import type { NamedSelector } from '../grants/choose-identity.ts';
import { wordsOf } from '../grants/refusal-text.ts';
import { eventReasonOf, noteOf, type ObjectReference } from '../kube/events/event.ts';
import type { EventSink } from '../kube/events/event-writer.ts';
import { identityOf, type RequestRecord } from '../server/request-record.ts';
import type { Renderer } from './renderer.ts';
import { throttleTexts, type ThrottleLimit } from '../callers/throttled-pods.ts';

/** SDKs probe for a metadata service so. A throttled request is reported with its limit. */
const unreported: ReadonlySet<Reason> = new Set([
  'ok',
  'metadata_header_missing',
  'not_found',
  'method_not_allowed',
  'pod_unknown',
  'caller_throttled',
]);

export class RefusalEvents implements Renderer {
  readonly #events: EventSink;

  constructor(events: EventSink) {
    this.#events = events;
  }

  render(record: RequestRecord): void {
    const { route, reason, pod, decision } = record;
    if (pod === undefined || reason === 'ok' || unreported.has(reason)) return;
    if (decision === undefined && route.kind !== 'passthrough') return;
    const identity = identityOf(decision?.grant);
    this.#events.record(referenceOfPod(pod), reason, () => ({
      related: identity === undefined ? undefined : referenceOfIdentity(identity),
      type: 'Warning',
      reason: eventReasonOf(reason),
      action: decision === undefined ? 'GetMetadata' : 'GetToken',
      note: noteOfRefusal(record, reason),
    }));
  }

  throttled(pod: Pod, limit: ThrottleLimit): void {
    this.#events.record(referenceOfPod(pod), `caller_throttled ${limit}`, () => ({
      related: undefined,
      type: 'Warning',
      reason: eventReasonOf('caller_throttled'),
      action: limit === 'connections' ? 'Connect' : 'GetToken',
      note: noteOf(`The pod ${throttleTexts[limit]}.`, rowOf('caller_throttled').fix),
    }));
  }
}

/** Namespace users read it: it contains no text of the request that may be a secret. */
function noteOfRefusal({ refusal, decision }: RequestRecord, reason: RefusalReason): string {
  const { grant, resource = '' } = decision ?? {};
  const { means, fix } = rowOf(reason);
  if (grant?.kind === 'refused' && grant.pod !== undefined) {
    // A caller may write anything into a request, even its own token.
    const words = wordsOf({ ...grant, facts: clean(grant.facts) });
    return noteOf(words.text, words.fix ?? fix);
  }
  if (grant?.kind !== 'granted') return noteOf(means, fix);
  // Entra ID repeats the resource. A value that does not look like a resource may be a secret.
  const text = stringAt(parseRecord(refusal), 'error_description');
  return noteOf(
    resource === '' ? text : text.replaceAll(resource, loggableResource(resource)),
    // The text ends with a fix that names the upstream.
    reason === 'upstream_down' ? '' : fix,
  );
}

function clean(facts: PodFacts): PodFacts {
  switch (facts.about) {
    case 'resource':
      return { ...facts, resource: loggableResource(facts.resource) };
    case 'object-id':
      return { ...facts, objectId: loggableId(facts.objectId) };
    case 'account-selector':
      return { ...facts, selector: loggableSelector(facts.selector) };
    case 'choice': {
      const { choice } = facts;
      if (choice.reason !== 'selector_not_bound') return facts;
      return { ...facts, choice: { ...choice, selector: loggableSelector(choice.selector) } };
    }
    default:
      return facts;
  }
}

function loggableSelector({ kind, value }: NamedSelector): NamedSelector {
  return { kind, value: loggableId(value) };
}

function referenceOfPod({ namespace, name, uid }: Pod): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}

export function referenceOfIdentity({ namespace, name, uid }: ObjectRef): ObjectReference {
  const apiVersion = 'aadpodidentity.k8s.io/v1';
  return { apiVersion, kind: 'AzureIdentity', namespace, name, uid };
}
