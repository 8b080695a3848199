/**
 * Records refusals as Events on the pod, and on its identity if that is the cause, so that
 * `kubectl describe` shows reason and fix to users who may not read the agent's log. Not called for
 * a cached token.
 */
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { Reason, RefusalReason } from '../base/answers.ts';
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { loggableResource } from '../../base/log.ts';
import { rowOf } from '../diagnosis/codes.ts';
import type { PodFacts, Refused, RefusedPod } from '../grants/authorization.ts';
import type { NamedSelector } from '../grants/grant.ts';
import { renderRefusal } from '../grants/refusal-text.ts';
import { eventReasonOf, noteOf, type ObjectReference } from '../kube/events/event.ts';
import type { EventSink } from '../kube/events/event-writer.ts';
import type { Observer, TokenDecision } from '../server/observer.ts';
import { relayed, type Exchange, type Handled } from '../server/request.ts';
import type { Route } from '../server/route.ts';
import { throttleTexts, type ThrottleLimit } from '../callers/throttled-pods.ts';

/**
 * No fault of a pod: SDKs probe for a metadata service by such requests. A throttled request is
 * reported with its limit.
 */
const unreported: ReadonlySet<Reason> = new Set([
  'ok',
  'metadata_header_missing',
  'not_found',
  'method_not_allowed',
  'pod_unknown',
  'caller_throttled',
]);

/** Reported on the identity, too, since its owner can fix them. */
const ofIdentity: ReadonlySet<Reason> = new Set([
  'identity_refused',
  'credential_refused',
  'credential_invalid',
  'credential_missing',
  'federation_refused',
]);

export interface RefusalEventsOptions {
  readonly events: EventSink;
  readonly pods: PodIndex;
  /** An Event could not be created; the request is answered anyway. */
  readonly onBug: (error: unknown) => void;
}

/** An observer that records refusals as Events, in front of another. */
export function withEvents(
  observer: Observer,
  { events, pods, onBug }: RefusalEventsOptions,
): Observer {
  /** An answer is written in the microtasks of its turn; this runs after them. */
  function afterAnswer(record: () => void): void {
    process.nextTick(() => {
      try {
        record();
      } catch (error) {
        onBug(error);
      }
    });
  }

  function recordRefusal(
    pod: Pod,
    reason: RefusalReason,
    action: string,
    identity: Identity | undefined,
    text: () => string,
  ): void {
    const draft = (related: ObjectReference | undefined) => () => ({
      related,
      type: 'Warning' as const,
      reason: eventReasonOf(reason),
      action,
      note: noteOf(text(), rowOf(reason).fix),
    });
    const ofPod = referenceOfPod(pod);
    const related = identity === undefined ? undefined : referenceOfIdentity(identity);
    events.record(ofPod, reason, draft(related));
    if (related !== undefined && ofIdentity.has(reason)) {
      events.record(related, reason, draft(ofPod));
    }
  }

  /** For a request that was refused for its parameters, or was not for a token. */
  function recordByCaller(exchange: Exchange, reason: RefusalReason, action: string): void {
    const caller = exchange.caller.resolve(pods);
    // The note contains no text of the request, since namespace users read it.
    if (caller.kind === 'pod') {
      recordRefusal(caller.pod, reason, action, undefined, () => rowOf(reason).means);
    }
  }

  function onDecision(exchange: Exchange, decision: TokenDecision): void {
    observer.onDecision(exchange, decision);
    const { reason } = decision.answer;
    if (reason === 'ok' || unreported.has(reason)) return;
    afterAnswer(() => recordDecision(exchange, decision, reason));
  }

  function recordDecision(
    exchange: Exchange,
    decision: TokenDecision,
    reason: RefusalReason,
  ): void {
    const { authorization, route } = decision;
    if (authorization?.pod !== undefined) {
      const { pod } = authorization;
      const identity = identityOf(authorization);
      recordRefusal(pod, reason, 'GetToken', identity, () => textOf(decision, reason));
    } else if (authorization === undefined && route === 'token') {
      recordByCaller(exchange, reason, 'GetToken');
    }
  }

  function onHandled(exchange: Exchange, route: Route, handled: Handled): void {
    observer.onHandled(exchange, route, handled);
    if (handled === relayed || route.kind !== 'passthrough') return;
    const { reason } = handled;
    if (reason === 'ok' || unreported.has(reason)) return;
    afterAnswer(() => recordByCaller(exchange, reason, 'GetMetadata'));
  }

  function onThrottled(pod: Pod, limit: ThrottleLimit): void {
    observer.onThrottled(pod, limit);
    events.record(referenceOfPod(pod), `caller_throttled ${limit}`, () => ({
      related: undefined,
      type: 'Warning',
      reason: eventReasonOf('caller_throttled'),
      action: limit === 'connections' ? 'Connect' : 'GetToken',
      note: noteOf(`The pod ${throttleTexts[limit]}.`, rowOf('caller_throttled').fix),
    }));
  }

  return { ...observer, onDecision, onHandled, onThrottled };
}

function textOf({ answer, authorization, resource }: TokenDecision, reason: RefusalReason): string {
  switch (authorization?.kind) {
    case 'refused':
      return authorization.pod === undefined
        ? rowOf(reason).means
        : descriptionOf(renderRefusal(withoutCallersText(authorization)).body);
    case 'authorized': {
      // Entra ID repeats the resource. A value that does not look like a resource may be a secret.
      const text = descriptionOf(answer.body);
      return resource === '' ? text : text.replaceAll(resource, loggableResource(resource));
    }
    case 'by-object-id':
    case undefined:
      return rowOf(reason).means;
  }
}

function descriptionOf(body: string): string {
  return stringAt(parseRecord(body), 'error_description');
}

function identityOf(
  authorization: NonNullable<TokenDecision['authorization']>,
): Identity | undefined {
  switch (authorization.kind) {
    case 'authorized':
      return authorization.identity;
    case 'refused':
      return identityIn(authorization);
    case 'by-object-id':
      return undefined;
  }
}

function identityIn(refused: Refused): Identity | undefined {
  return 'identity' in refused.facts ? refused.facts.identity : undefined;
}

/** A caller may write anything there, even its own token. */
function withoutCallersText(refused: RefusedPod): RefusedPod {
  return { ...refused, facts: clean(refused.facts) };
}

function clean(facts: PodFacts): PodFacts {
  switch (facts.about) {
    case 'resource':
      return { ...facts, resource: loggableResource(facts.resource) };
    case 'object-id':
      return { ...facts, objectId: loggableId(facts.objectId) };
    case 'account-selector':
      return { ...facts, selector: loggableSelector(facts.selector) };
    case 'grant': {
      const { grant } = facts;
      if (grant.reason !== 'selector_not_bound') return facts;
      return { ...facts, grant: { ...grant, selector: loggableSelector(grant.selector) } };
    }
    default:
      return facts;
  }
}

function loggableSelector({ kind, value }: NamedSelector): NamedSelector {
  return { kind, value: loggableId(value) };
}

/** A GUID, or the path of an Azure resource. */
function loggableId(value: string): string {
  const isId = /^(?:[0-9a-f-]{36}|\/subscriptions\/[0-9a-f-]{36}\/[\w./()-]{1,300})$/i.test(value);
  return isId ? value : '[unusual]';
}

function referenceOfPod({ namespace, name, uid }: Pod): ObjectReference {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}

function referenceOfIdentity({ namespace, name, uid }: Identity): ObjectReference {
  const apiVersion = 'aadpodidentity.k8s.io/v1';
  return { apiVersion, kind: 'AzureIdentity', namespace, name, uid };
}
