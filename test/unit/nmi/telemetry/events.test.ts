import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, stringAt } from '../../../../src/base/json-value.ts';
import { type Answer, refuse } from '../../../../src/nmi/base/answers.ts';
import { rowOf } from '../../../../src/nmi/diagnosis/codes.ts';
import type { Grant, PodFacts, RefusedPod } from '../../../../src/nmi/grants/grant.ts';
import type { IdentityOwner } from '../../../../src/nmi/grants/identities-in-use.ts';
import { renderRefusal } from '../../../../src/nmi/grants/refusal-text.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { EventWriter } from '../../../../src/nmi/kube/events/event-writer.ts';
import type { EventDraft, ObjectReference } from '../../../../src/nmi/kube/events/event.ts';
import type { RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import type { FailureReason } from '../../../../src/nmi/sources/source.ts';
import { IdentityEvents } from '../../../../src/nmi/telemetry/identity-events.ts';
import { RefusalEvents } from '../../../../src/nmi/telemetry/refusal-events.ts';
import type { SourceRefusal } from '../../../../src/nmi/tokens/source-refusals.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createGrant,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
} from '../../../support/request-records.ts';

const pod = createPod({ namespace: 'shop', name: 'app', ips: ['10.0.0.1'] });
const identity = createIdentity({ namespace: 'shop', name: 'checkout' });
const secret = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

interface Recorded extends Omit<EventDraft, 'regarding'> {
  readonly regarding: ObjectReference;
  readonly kind: string;
}

/** Takes Events unless there is no room for them. */
function openRecorder(hasRoom = () => true) {
  const recorded: Recorded[] = [];
  const record = (
    regarding: ObjectReference,
    kind: string,
    draft: () => Omit<EventDraft, 'regarding'>,
  ): boolean => hasRoom() && recorded.push({ regarding, kind, ...draft() }) > 0;
  return { recorded, record };
}

function open() {
  const { recorded, record } = openRecorder();
  return { events: new RefusalEvents({ record }), recorded };
}

/** A token request of the pod. */
function refusal(
  grant: Grant | undefined,
  answer: Answer,
  resource = 'https://vault.azure.net',
): RequestRecord {
  const decision = createDecision({ grant, resource, cache: 'none' });
  return createRefusal(answer, { decision, pod });
}

function refusedFor(facts: PodFacts, reason: RefusedPod['reason']): RefusedPod {
  return { kind: 'refused', reason, facts, isPending: false, pod };
}

const authorized = createGrant({ pod, identity });

describe('a refusal', () => {
  it('is an Event on its pod with the reason and the fix of its answer', () => {
    const { events, recorded } = open();
    const facts = {
      about: 'choice',
      choice: { kind: 'refused', reason: 'no_binding_label' },
    } as const;
    const grant = refusedFor(facts, 'no_binding_label');
    events.render(refusal(grant, renderRefusal(grant)));
    const [event, ...others] = recorded;
    assert.deepEqual(others, []);
    assert.deepEqual(event, {
      regarding: {
        apiVersion: 'v1',
        kind: 'Pod',
        namespace: 'shop',
        name: 'app',
        uid: 'uid-app',
      },
      kind: 'no_binding_label',
      related: undefined,
      type: 'Warning',
      reason: 'NoBindingLabel',
      action: 'GetToken',
      note:
        'Identity not found: pod shop/app has no label "aadpodidbinding". Fix: Set it to the selector of an ' +
        'AzureIdentityBinding in the same namespace.',
    });
  });

  it('of an identity by its source is one on the pod, which names the identity', () => {
    const { events, recorded } = open();
    events.render(refusal(authorized, refuse('credential_refused', 'AADSTS7000222: expired')));
    const [{ regarding, related, reason, note } = { note: '' }, ...others] = recorded;
    assert.deepEqual(
      [regarding?.kind, regarding?.name, related?.kind, related?.name, reason, others],
      ['Pod', 'app', 'AzureIdentity', 'checkout', 'CredentialRefused', []],
    );
    assert.match(note, /^AADSTS7000222: expired \(credential_refused\) Fix: Renew/);
  });

  it('of a request with bad parameters is one on the caller', () => {
    const { events, recorded } = open();
    const answer = refuse('parameter_invalid', `api-version has the value "${secret}"`);
    events.render(refusal(undefined, answer));
    events.render({ ...refusal(undefined, answer), pod: undefined });
    assert.equal(recorded.length, 1, 'an unknown caller has no Events');
    const { means, fix } = rowOf('parameter_invalid');
    assert.equal(recorded[0]?.note, `${means} Fix: ${fix}`);
  });

  it('of the metadata service is one, but not for the paths that SDKs only try', () => {
    const { events, recorded } = open();
    const instance = { decision: undefined, pod, route: routeTo('/metadata/instance') };
    const nothing = { ...instance, route: { kind: 'refused', reason: 'path_invalid' } } as const;
    events.render(createRefusal(refuse('metadata_blocked', 'no'), instance));
    events.render(createRefusal(refuse('not_found', 'no'), instance));
    events.render(createRefusal(refuse('path_invalid', 'no'), nothing));
    events.render(createRecord(instance));
    assert.deepEqual(
      recorded.map(({ reason, action }) => `${action} ${reason}`),
      ['GetMetadata MetadataBlocked'],
    );
  });
});

describe('no Event', () => {
  it('exists for a served token, for what is no fault of the pod, and on a host process', () => {
    const { events, recorded } = open();
    events.render(createRecord());
    for (const reason of ['pod_unknown', 'caller_throttled', 'not_found'] as const)
      events.render(refusal(authorized, refuse(reason, 'no')));
    const named = { ...refusal(undefined, refuse('parameter_missing', 'no')), callerPod: pod };
    events.render({ ...named, route: hostTokenRoute, pod: undefined });
    assert.deepEqual(recorded, []);
  });
});

describe('text of a request', () => {
  const grant = {
    kind: 'refused',
    reason: 'selector_not_bound',
    label: 'app',
    identityNames: ['checkout'],
    missingIdentityNames: [],
  } as const;
  const selector = { kind: 'client_id', value: secret } as const;
  const cases: readonly (readonly [PodFacts, RefusedPod['reason']])[] = [
    [{ about: 'resource', identity, resource: secret }, 'resource_not_allowed'],
    [{ about: 'object-id', objectId: secret }, 'selector_not_bound'],
    [{ about: 'account-selector', selector }, 'selector_not_bound'],
    [{ about: 'choice', choice: { ...grant, selector } }, 'selector_not_bound'],
  ];
  for (const [facts, reason] of cases) {
    it(`is in no note when it may be a secret: ${facts.about}`, () => {
      const { events, recorded } = open();
      const refused = refusedFor(facts, reason);
      const answer = renderRefusal(refused);
      assert.ok(answer.body.includes(secret), 'the caller may read what it sent');
      events.render(refusal(refused, answer, secret));
      assert.equal(recorded.length, 1);
      assert.ok(!JSON.stringify(recorded).includes(secret));
      assert.match(recorded[0]?.note ?? '', /\[unusual\]/);
    });
  }

  it('is in no note when Entra ID repeats it', () => {
    const { events, recorded } = open();
    for (const reason of ['resource_refused', 'upstream_refused'] as const) {
      const answer = refuse(reason, `AADSTS500011: ${secret} was not found`);
      events.render(refusal(authorized, answer, secret));
    }
    assert.equal(recorded.length, 2);
    assert.ok(!JSON.stringify(recorded).includes(secret));
  });
});

describe('a throttled pod', () => {
  it('has an Event for each limit, with the reason', () => {
    const { events, recorded } = open();
    for (const [limit, action, begin] of [
      [
        'connections',
        'Connect',
        /^The pod opened more connections at once than one pod may have\./,
      ],
      [
        'tokens',
        'GetToken',
        /^The pod waited for more different tokens at once than one pod may\./,
      ],
    ] as const) {
      events.throttled(pod, limit);
      const { kind, reason, action: found, note } = recorded.pop() ?? assert.fail();
      const expected = [`caller_throttled ${limit}`, 'CallerThrottled', action];
      assert.deepEqual([kind, reason, found], expected);
      assert.match(note, begin);
    }
  });
});

const minuteMs = 60_000;
/** The sweeps of thousands of writers are not under test. */
const stillClock = { schedule: () => () => undefined };
const owner: IdentityOwner = {
  kind: 'AzureIdentity',
  namespace: 'shop',
  name: 'checkout',
  uid: 'uid-1',
};

function openIdentityEvents({ random = 0, jitterMs = 0, isQuiet = false } = {}) {
  const clock = new HandClock();
  const state: { isQuiet: boolean; leftMs: number | undefined } = { isQuiet, leftMs: 0 };
  const { recorded, record } = openRecorder(() => !state.isQuiet);
  const events = new IdentityEvents({
    events: { record },
    clock,
    node: 'aks-pool1-1-vmss000001',
    random: () => random,
    jitterMs,
    breakMs: 30_000,
  });
  const refuseFetch = (
    reason: FailureReason = 'credential_refused',
    fields: Partial<SourceRefusal> & { text?: string } = {},
    of = owner,
  ): void => {
    const { text: description = 'AADSTS7000222: expired' } = fields;
    const sourceRefusal: SourceRefusal = {
      identity: { kind: 'unnamed' },
      resource: 'https://vault.azure.net',
      failure: { reason, description, cooldownMs: 0 },
      sinceWallMs: 0,
      lastWallMs: 0,
      ...fields,
    };
    events.refused(of, sourceRefusal, () => state.leftMs);
    clock.advance(0);
  };
  const accept = (of = owner): void => {
    events.accepted(of);
    clock.advance(0);
  };
  const take = () => recorded.splice(0);
  const reasons = () => take().map(({ reason }) => reason);
  return { clock, events, state, refuseFetch, accept, take, reasons };
}

describe('the Event of an identity that its source refuses', () => {
  it('is not written once no pod may use the identity', () => {
    const { clock, state, refuseFetch, accept, take } = openIdentityEvents({
      random: 0.5,
      jitterMs: 10_000,
    });
    state.leftMs = 90 * minuteMs;
    refuseFetch();
    state.leftMs = undefined;
    clock.advance(10_000);
    accept();
    clock.advance(10_000);
    assert.deepEqual(take(), []);
  });

  it('names the reason, until when cached tokens last, and the fix', () => {
    const { state, refuseFetch, take } = openIdentityEvents();
    state.leftMs = 90 * minuteMs;
    refuseFetch();
    const [{ note, ...event } = { note: '' }, ...others] = take();
    assert.deepEqual(others, []);
    const { kind, namespace, name, uid } = owner;
    assert.deepEqual(event, {
      regarding: { apiVersion: 'aadpodidentity.k8s.io/v1', kind, namespace, name, uid },
      kind: 'credential_refused',
      related: undefined,
      type: 'Warning',
      reason: 'CredentialRefused',
      action: 'GetToken',
      sharedForMs: 10 * minuteMs,
    });
    assert.match(
      note,
      /^AADSTS7000222: expired \(credential_refused\) Cached tokens are valid until 2026-01-01T01:30:00Z\. Fix: Renew/,
    );
    state.leftMs = 0;
    refuseFetch('identity_not_assigned');
    const [none] = take();
    assert.equal(none?.kind, 'identity_not_assigned aks-pool1-1-vmss', 'one of the scale set');
    assert.match(none.note, /No cached token is left\./);
  });

  it('is one for any number of refusals, and one every half an hour while they last', () => {
    const { clock, refuseFetch, reasons } = openIdentityEvents();
    for (let count = 0; count < 29; count++) {
      refuseFetch();
      clock.advance(minuteMs);
    }
    assert.deepEqual(reasons(), ['CredentialRefused']);
    clock.advance(minuteMs);
    refuseFetch();
    refuseFetch();
    assert.deepEqual(reasons(), ['CredentialRefused']);
  });

  it('comes at once for another reason, and later if the first one had no room', () => {
    const { state, refuseFetch, reasons } = openIdentityEvents({ isQuiet: true });
    refuseFetch();
    assert.deepEqual(reasons(), []);
    state.isQuiet = false;
    refuseFetch();
    refuseFetch('federation_refused');
    assert.deepEqual(reasons(), ['CredentialRefused', 'FederationRefused']);
  });

  it('does not exist where tokens are throttled, and for a service account', () => {
    const { refuseFetch, reasons } = openIdentityEvents();
    refuseFetch('upstream_throttled');
    refuseFetch('credential_refused', {}, { ...owner, kind: 'ServiceAccount' });
    assert.deepEqual(reasons(), []);
  });

  it('is written of an upstream that does not answer once that lasts, and names the way to it', () => {
    const { clock, state, refuseFetch, accept, take, reasons } = openIdentityEvents();
    const since = { sinceWallMs: clock.wallMs() };
    state.leftMs = 90 * minuteMs;
    refuseFetch('upstream_down', { ...since, text: 'it is silent' });
    clock.advance(20_000);
    accept();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), [], 'a short break');
    const again = { sinceWallMs: clock.wallMs(), text: 'it is silent' };
    refuseFetch('upstream_down', again);
    clock.advance(29_000);
    refuseFetch('upstream_down', again);
    assert.deepEqual(reasons(), []);
    clock.advance(1_000);
    const [event, ...others] = take();
    assert.equal(others.length, 0);
    assert.equal(event?.kind, 'upstream_down aks-pool1-1-vmss000001', 'one of the node');
    assert.match(
      event.note,
      /^it is silent \(upstream_down\) .* Fix: If it lasts, open the metadata address of the node/,
    );
    accept();
    assert.deepEqual(reasons(), ['IdentityAccepted']);
  });

  it('is written at once of such an upstream when no token is left', () => {
    const { clock, state, refuseFetch, reasons } = openIdentityEvents();
    const since = { sinceWallMs: clock.wallMs() };
    state.leftMs = 8_000;
    refuseFetch('upstream_down', since);
    clock.advance(8_000);
    assert.deepEqual(reasons(), []);
    state.leftMs = 0;
    refuseFetch('upstream_down', since);
    assert.deepEqual(reasons(), ['UpstreamDown']);
    clock.advance(minuteMs);
    refuseFetch('upstream_down', since);
    assert.deepEqual(reasons(), []);
  });

  it('waits for a random time, and is left out if the identity is accepted meanwhile', () => {
    const { clock, events, state, refuseFetch, accept, reasons } = openIdentityEvents({
      random: 0.5,
      jitterMs: minuteMs,
    });
    state.leftMs = minuteMs;
    refuseFetch();
    clock.advance(29_999);
    refuseFetch();
    assert.deepEqual(reasons(), []);
    clock.advance(1);
    assert.deepEqual(reasons(), ['CredentialRefused']);
    refuseFetch('identity_refused');
    refuseFetch('credential_refused', {}, { ...owner, uid: 'uid-2' });
    accept({ ...owner, uid: 'uid-2' });
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['IdentityRefused']);
    refuseFetch('credential_refused');
    events[Symbol.dispose]();
    assert.deepEqual(clock.armed, []);
  });
});

describe('the Event of an identity that its source accepts again', () => {
  it('comes once, after a refusal that was reported', () => {
    const { refuseFetch, accept, take } = openIdentityEvents();
    accept();
    assert.deepEqual(take(), []);
    refuseFetch();
    take();
    accept();
    accept();
    const [event, ...others] = take();
    assert.deepEqual(others, []);
    assert.deepEqual(
      [event?.type, event?.reason, event?.action, event?.sharedForMs, event?.regarding.uid],
      ['Normal', 'IdentityAccepted', 'GetToken', minuteMs, 'uid-1'],
    );
    refuseFetch();
    assert.deepEqual(
      take().map(({ reason }) => reason),
      ['CredentialRefused'],
    );
  });

  it('comes after a refusal of pods whose own Event was left out, but not amid a new one', () => {
    const delays = { random: 0.5, jitterMs: minuteMs };
    const { clock, refuseFetch, accept, reasons } = openIdentityEvents(delays);
    refuseFetch();
    accept();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['IdentityAccepted']);
    refuseFetch();
    clock.advance(minuteMs);
    accept();
    refuseFetch();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['CredentialRefused']);
  });

  it('is forgotten for the one that was refused longest ago, of thousands', () => {
    const { clock, refuseFetch, accept, reasons } = openIdentityEvents({ jitterMs: minuteMs });
    for (let count = 0; count <= 2_000; count++) {
      refuseFetch('credential_refused', {}, { ...owner, uid: String(count) });
    }
    clock.advance(minuteMs);
    reasons();
    accept({ ...owner, uid: '0' });
    accept({ ...owner, uid: '1' });
    assert.deepEqual(reasons(), ['IdentityAccepted']);
  });
});

it('of an identity of 5,000 nodes is one, and they come in half a minute', async () => {
  const clock = new HandClock();
  const monotonicMs = () => clock.monotonicMs();
  const wallMs = () => clock.wallMs();
  const silent = (): void => undefined;
  const log = { debug: silent, info: silent, warn: silent, error: silent };
  const names = new Map<string, number>();
  const writesInSecond = new Map<number, number>();
  const nodes = Array.from({ length: 5_000 }, (_, at) => {
    const random = (): number => at / 5_000;
    const client = {
      postJson: (_path: string, body: unknown): Promise<unknown> => {
        const second = Math.floor(clock.monotonicMs() / 1_000);
        writesInSecond.set(second, (writesInSecond.get(second) ?? 0) + 1);
        const name = stringAt(asRecord(asRecord(body)?.['metadata']), 'name');
        const others = names.get(name) ?? 0;
        names.set(name, others + 1);
        if (others === 0) return Promise.resolve({});
        return Promise.reject(new KubeError('SERVER', 'exists', { status: 409 }));
      },
    };
    const instance = `aks-pool1-1-vmss${at.toString(36).padStart(6, '0')}`;
    const writer = new EventWriter({
      client,
      clock: { ...stillClock, monotonicMs, wallMs },
      instance,
      random,
      log,
    });
    return new IdentityEvents({
      events: writer,
      clock,
      node: instance,
      random,
      jitterMs: 30_000,
      breakMs: 30_000,
    });
  });
  const sourceRefusal: SourceRefusal = {
    identity: { kind: 'unnamed' },
    resource: 'https://vault.azure.net',
    failure: { reason: 'identity_not_assigned', description: 'no', cooldownMs: 0 },
    sinceWallMs: 0,
    lastWallMs: 0,
  };
  for (const each of nodes) each.refused(owner, sourceRefusal, () => 60_000);
  assert.equal(names.size, 0);
  for (let second = 0; second < 30; second++) {
    clock.advance(1_000);
    await new Promise(setImmediate);
  }
  assert.deepEqual([...names.values()], [5_000]);
  assert.ok(Math.max(...writesInSecond.values()) <= 170);
});
