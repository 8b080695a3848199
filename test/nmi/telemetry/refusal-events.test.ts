import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { refuse } from '../../../src/nmi/base/answers.ts';
import { rowOf } from '../../../src/nmi/diagnosis/codes.ts';
import type { Authorization, PodFacts, RefusedPod } from '../../../src/nmi/grants/authorization.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import type { EventDraft, ObjectReference } from '../../../src/nmi/kube/events/event.ts';
import type { Observer, TokenDecision } from '../../../src/nmi/server/observer.ts';
import { relayed, type Exchange } from '../../../src/nmi/server/request.ts';
import type { Route } from '../../../src/nmi/server/route.ts';
import { withEvents } from '../../../src/nmi/telemetry/refusal-events.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const pod = createPod({ namespace: 'shop', name: 'app', ips: ['10.0.0.1'] });
const identity = createIdentity({ namespace: 'shop', name: 'checkout' });
const secret = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

interface Recorded extends Omit<EventDraft, 'regarding'> {
  readonly regarding: ObjectReference;
  readonly kind: string;
}

function open() {
  const pods = new PodIndex(new HandClock());
  pods.upsert(pod);
  const recorded: Recorded[] = [];
  const seen: string[] = [];
  const see = (name: string) => (): void => void seen.push(name);
  const plain: Observer = {
    onDecision: see('decision'),
    onHandled: see('handled'),
    onThrottled: see('throttled'),
    onRefusal: see('refusal'),
    onHit: see('hit'),
    onFetch: see('fetch'),
    onRefresh: see('refresh'),
    onSourceBug: see('bug'),
  };
  const events = {
    record: (
      regarding: ObjectReference,
      kind: string,
      draft: () => Omit<EventDraft, 'regarding'>,
    ): void => void recorded.push({ regarding, kind, ...draft() }),
  };
  const bugs: unknown[] = [];
  const onBug = (error: unknown): void => void bugs.push(error);
  return { observer: withEvents(plain, { events, pods, onBug }), plain, recorded, seen, bugs };
}

const instance: Route = {
  kind: 'passthrough',
  area: 'instance',
  path: '/metadata/instance',
  query: '',
};
const invalid: Route = { kind: 'refused', reason: 'path_invalid' };

/** Events are recorded after the answer. */
const answered = (): Promise<unknown> => new Promise(setImmediate);

function exchangeFrom(remoteIp: string): Exchange {
  return {
    caller: new CallerConnection({ remoteIp }, { kind: 'by-address' }),
    method: 'GET',
    startedAtMs: 0,
    requestId: 'id',
    isGone: false,
    headerValues: () => [],
  };
}

function decisionOf(
  authorization: Authorization | undefined,
  answer: TokenDecision['answer'],
  resource = 'https://vault.azure.net',
): TokenDecision {
  return { route: 'token', answer, authorization, resource, source: '', cache: 'none' };
}

function refusedFor(facts: PodFacts, reason: RefusedPod['reason']): RefusedPod {
  return { kind: 'refused', reason, facts, isPending: false, pod };
}

function authorized(): Authorization {
  return {
    kind: 'authorized',
    pod,
    identity,
    by: 'only',
    upstream: { kind: 'client_id', value: 'c' },
    auxiliary: [],
  };
}

describe('a refusal', () => {
  it('is an Event on its pod with the reason and the fix of its answer', async () => {
    const { observer, recorded, seen } = open();
    const grant = { kind: 'refused', reason: 'no_binding_label' } as const;
    const refusal = refusedFor({ about: 'grant', grant }, 'no_binding_label');
    observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(refusal, renderRefusal(refusal)));
    await answered();
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
        'Identity not found: pod shop/app has no label "aadpodidbinding". Set it to the selector of an ' +
        'AzureIdentityBinding in the same namespace. (no_binding_label) Fix: ' +
        rowOf('no_binding_label').fix,
    });
    assert.deepEqual(seen, ['decision'], 'it is logged and counted as before');
  });

  it('of a credential is also one on its identity, and each names the other', async () => {
    const { observer, recorded } = open();
    const answer = refuse('credential_refused', 'AADSTS7000222: expired');
    observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(authorized(), answer));
    await answered();
    assert.deepEqual(
      recorded.map(({ regarding, related, reason }) => [
        `${regarding.kind} ${regarding.name}`,
        `${related?.kind ?? ''} ${related?.name ?? ''}`,
        reason,
      ]),
      [
        ['Pod app', 'AzureIdentity checkout', 'CredentialRefused'],
        ['AzureIdentity checkout', 'Pod app', 'CredentialRefused'],
      ],
    );
    assert.match(
      recorded[1]?.note ?? '',
      /^AADSTS7000222: expired \(credential_refused\) Fix: Renew/,
    );
  });

  it('of an identity without fault is one on the pod only', async () => {
    const { observer, recorded } = open();
    const answer = refuse('upstream_down', 'No token for the moment.');
    observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(authorized(), answer));
    await answered();
    assert.deepEqual(
      recorded.map(({ regarding, related }) => [regarding.kind, related?.kind]),
      [['Pod', 'AzureIdentity']],
    );
  });

  it('of a request with bad parameters is one on the caller', async () => {
    const { observer, recorded } = open();
    const answer = refuse('parameter_invalid', `api-version has the value "${secret}"`);
    for (const ip of ['10.0.0.1', '10.0.0.9']) {
      observer.onDecision(exchangeFrom(ip), decisionOf(undefined, answer));
    }
    await answered();
    assert.equal(recorded.length, 1, 'an unknown caller has no Events');
    const { means, fix } = rowOf('parameter_invalid');
    assert.equal(recorded[0]?.note, `${means} Fix: ${fix}`);
  });

  it('of the metadata service is one, but not for the paths that SDKs only try', async () => {
    const { observer, recorded } = open();
    const exchange = exchangeFrom('10.0.0.1');
    observer.onHandled(exchange, instance, refuse('metadata_blocked', 'no'));
    observer.onHandled(exchange, instance, refuse('not_found', 'no'));
    observer.onHandled(exchange, invalid, refuse('path_invalid', 'no'));
    observer.onHandled(exchange, instance, relayed);
    await answered();
    assert.deepEqual(
      recorded.map(({ reason, action }) => `${action} ${reason}`),
      ['GetMetadata MetadataBlocked'],
    );
  });

  it('does not exist when a token was served, or nothing is wrong with the pod', async () => {
    const { observer, recorded } = open();
    const exchange = exchangeFrom('10.0.0.1');
    observer.onDecision(
      exchange,
      decisionOf(authorized(), { reason: 'ok', status: 200, body: '' }),
    );
    for (const reason of ['pod_unknown', 'caller_throttled', 'not_found'] as const) {
      observer.onDecision(exchange, decisionOf(authorized(), refuse(reason, 'no')));
    }
    await answered();
    assert.deepEqual(recorded, []);
  });

  it('that cannot be converted to an Event is logged', async () => {
    const { observer, recorded, bugs } = open();
    const broken = { kind: 'refused', pod, reason: 'binding_missing' } as unknown as RefusedPod;
    const answer = refuse('binding_missing', 'no');
    observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(broken, answer));
    await answered();
    assert.deepEqual([recorded.length, bugs.length], [0, 1]);
  });

  it('of /host/token is not one on the calling process', async () => {
    const { observer, recorded } = open();
    const answer = refuse('parameter_missing', 'no');
    const decision: TokenDecision = { ...decisionOf(undefined, answer), route: 'host-token' };
    observer.onDecision(exchangeFrom('10.0.0.1'), decision);
    await answered();
    assert.deepEqual(recorded, []);
  });
});

describe('text of a request', () => {
  const grant = {
    kind: 'refused',
    reason: 'selector_not_bound',
    label: 'app',
    bindingNames: [],
    identityNames: ['checkout'],
    missingIdentityNames: [],
  } as const;
  const selector = { kind: 'client_id', value: secret } as const;
  const cases: readonly (readonly [PodFacts, RefusedPod['reason']])[] = [
    [{ about: 'resource', identity, resource: secret }, 'resource_not_allowed'],
    [{ about: 'object-id', objectId: secret }, 'selector_not_bound'],
    [{ about: 'account-selector', selector }, 'selector_not_bound'],
    [{ about: 'grant', grant: { ...grant, selector } }, 'selector_not_bound'],
  ];
  for (const [facts, reason] of cases) {
    it(`is in no note when it may be a secret: ${facts.about}`, async () => {
      const { observer, recorded } = open();
      const refusal = refusedFor(facts, reason);
      const answer = renderRefusal(refusal);
      assert.ok(answer.body.includes(secret), 'the caller may read what it sent');
      observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(refusal, answer, secret));
      await answered();
      assert.equal(recorded.length, 1);
      assert.ok(!JSON.stringify(recorded).includes(secret));
      assert.match(recorded[0]?.note ?? '', /\[unusual\]/);
    });
  }

  it('is in no note when Entra ID repeats it', async () => {
    const { observer, recorded } = open();
    for (const reason of ['resource_refused', 'upstream_refused'] as const) {
      const answer = refuse(reason, `AADSTS500011: ${secret} was not found`);
      observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(authorized(), answer, secret));
    }
    await answered();
    assert.equal(recorded.length, 2);
    assert.ok(!JSON.stringify(recorded).includes(secret));
  });

  it('is in the note when it has the expected format', async () => {
    const { observer, recorded } = open();
    const value = '0a1b2c3d-0000-4000-8000-000000000001';
    const refusal = refusedFor(
      { about: 'grant', grant: { ...grant, selector: { kind: 'client_id', value } } },
      'selector_not_bound',
    );
    observer.onDecision(exchangeFrom('10.0.0.1'), decisionOf(refusal, renderRefusal(refusal)));
    await answered();
    assert.ok(recorded[0]?.note.includes(value));
  });
});

describe('a throttled pod', () => {
  it('has an Event for each limit, with the reason', () => {
    const { observer, recorded, seen } = open();
    observer.onThrottled(pod, 'connections');
    observer.onThrottled(pod, 'tokens');
    assert.deepEqual(
      recorded.map(({ kind, reason, action, note }) => [kind, reason, action, note.split('.')[0]]),
      [
        [
          'caller_throttled connections',
          'CallerThrottled',
          'Connect',
          'The pod opened more connections at once than one pod may have',
        ],
        [
          'caller_throttled tokens',
          'CallerThrottled',
          'GetToken',
          'The pod waited for more different tokens at once than one pod may',
        ],
      ],
    );
    assert.deepEqual(seen, ['throttled', 'throttled']);
  });
});

describe('a hit', () => {
  it('is the same with and without Events', () => {
    const { observer, plain } = open();
    assert.equal(Reflect.get(observer, 'onHit'), Reflect.get(plain, 'onHit'));
  });
});
