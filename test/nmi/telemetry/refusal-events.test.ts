import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refuse, type Answer } from '../../../src/nmi/base/answers.ts';
import { rowOf } from '../../../src/nmi/diagnosis/codes.ts';
import type { Grant, PodFacts, RefusedPod } from '../../../src/nmi/grants/grant.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import type { EventDraft, ObjectReference } from '../../../src/nmi/kube/events/event.ts';
import type { RequestRecord } from '../../../src/nmi/server/request-record.ts';
import { RefusalEvents } from '../../../src/nmi/telemetry/refusal-events.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';
import {
  createDecision,
  createGrant,
  createRecord,
  createRefusal,
  hostTokenRoute,
  routeTo,
} from '../../support/request-records.ts';

const pod = createPod({ namespace: 'shop', name: 'app', ips: ['10.0.0.1'] });
const identity = createIdentity({ namespace: 'shop', name: 'checkout' });
const secret = 'eyJhbGciOiJub25lIn0.a-token-of-the-pod.';

interface Recorded extends Omit<EventDraft, 'regarding'> {
  readonly regarding: ObjectReference;
  readonly kind: string;
}

function open() {
  const recorded: Recorded[] = [];
  const events = new RefusalEvents({
    record: (
      regarding: ObjectReference,
      kind: string,
      draft: () => Omit<EventDraft, 'regarding'>,
    ): boolean => recorded.push({ regarding, kind, ...draft() }) > 0,
  });
  return { events, recorded };
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
    const answer = refuse('credential_refused', 'AADSTS7000222: expired');
    events.render(refusal(authorized, answer));
    assert.deepEqual(
      recorded.map(({ regarding, related, reason }) => [
        `${regarding.kind} ${regarding.name}`,
        `${related?.kind ?? ''} ${related?.name ?? ''}`,
        reason,
      ]),
      [['Pod app', 'AzureIdentity checkout', 'CredentialRefused']],
    );
    assert.match(
      recorded[0]?.note ?? '',
      /^AADSTS7000222: expired \(credential_refused\) Fix: Renew/,
    );
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

  it('does not exist when a token was served, or nothing is wrong with the pod', () => {
    const { events, recorded } = open();
    events.render(createRecord());
    for (const reason of ['pod_unknown', 'caller_throttled', 'not_found'] as const) {
      events.render(refusal(authorized, refuse(reason, 'no')));
    }
    assert.deepEqual(recorded, []);
  });

  it('of /host/token is not one on the calling process', () => {
    const { events, recorded } = open();
    const answer = refuse('parameter_missing', 'no');
    const record = { ...refusal(undefined, answer), route: hostTokenRoute, pod: undefined };
    events.render({ ...record, callerPod: pod });
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

  it('is in the note when it has the expected format', () => {
    const { events, recorded } = open();
    const value = '0a1b2c3d-0000-4000-8000-000000000001';
    const refused = refusedFor(
      { about: 'choice', choice: { ...grant, selector: { kind: 'client_id', value } } },
      'selector_not_bound',
    );
    events.render(refusal(refused, renderRefusal(refused)));
    assert.ok(recorded[0]?.note.includes(value));
  });
});

describe('a throttled pod', () => {
  it('has an Event for each limit, with the reason', () => {
    const { events, recorded } = open();
    events.throttled(pod, 'connections');
    events.throttled(pod, 'tokens');
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
  });
});
