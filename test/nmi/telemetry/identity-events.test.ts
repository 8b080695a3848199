import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, stringAt } from '../../../src/base/json-value.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { EventWriter } from '../../../src/nmi/kube/events/event-writer.ts';
import type { IdentityOwner } from '../../../src/nmi/grants/identities-in-use.ts';
import type { EventDraft, ObjectReference } from '../../../src/nmi/kube/events/event.ts';
import type { FailureReason } from '../../../src/nmi/sources/source.ts';
import { IdentityEvents } from '../../../src/nmi/telemetry/identity-events.ts';
import type { SourceRefusal } from '../../../src/nmi/tokens/source-refusals.ts';
import { HandClock } from '../../support/hand-clock.ts';

const minuteMs = 60_000;
/** The sweeps of thousands of writers are not under test. */
const stillClock = { schedule: () => () => undefined };
const owner: IdentityOwner = {
  kind: 'AzureIdentity',
  namespace: 'shop',
  name: 'checkout',
  uid: 'uid-1',
};

interface Recorded extends Omit<EventDraft, 'regarding'> {
  readonly regarding: ObjectReference;
  readonly kind: string;
}

function open({ random = 0, jitterMs = 0, isQuiet = false } = {}) {
  const clock = new HandClock();
  const recorded: Recorded[] = [];
  const state: { isQuiet: boolean; leftMs: number | undefined } = { isQuiet, leftMs: 0 };
  const events = new IdentityEvents({
    events: {
      record: (regarding, kind, draft) => {
        if (!state.isQuiet) recorded.push({ regarding, kind, ...draft() });
        return !state.isQuiet;
      },
    },
    clock,
    node: 'aks-pool1-1-vmss000001',
    random: () => random,
    jitterMs,
  });
  const refuse = (
    reason: FailureReason = 'credential_refused',
    fields: Partial<SourceRefusal> & { text?: string } = {},
    of = owner,
  ): void => {
    const { text: description = 'AADSTS7000222: expired' } = fields;
    const refusal: SourceRefusal = {
      identity: { kind: 'unnamed' },
      resource: 'https://vault.azure.net',
      failure: { reason, description, cooldownMs: 0 },
      sinceWallMs: 0,
      lastWallMs: 0,
      ...fields,
    };
    events.refused(of, refusal, () => state.leftMs);
    clock.advance(0);
  };
  const accept = (of = owner): void => {
    events.accepted(of);
    clock.advance(0);
  };
  const take = () => recorded.splice(0);
  const reasons = () => take().map(({ reason }) => reason);
  return { clock, events, state, refuse, accept, take, reasons };
}

describe('the Event of an identity that its source refuses', () => {
  it('is not written once no pod may use the identity', () => {
    const { clock, state, refuse, accept, take } = open({ random: 0.5, jitterMs: 10_000 });
    state.leftMs = 90 * minuteMs;
    refuse();
    state.leftMs = undefined;
    clock.advance(10_000);
    accept();
    clock.advance(10_000);
    assert.deepEqual(take(), []);
  });

  it('names the reason, until when cached tokens last, and the fix', () => {
    const { state, refuse, take } = open();
    state.leftMs = 90 * minuteMs;
    refuse();
    const [{ note, ...event } = { note: '' }, ...others] = take();
    assert.deepEqual(others, []);
    assert.deepEqual(event, {
      regarding: {
        apiVersion: 'aadpodidentity.k8s.io/v1',
        kind: 'AzureIdentity',
        namespace: 'shop',
        name: 'checkout',
        uid: 'uid-1',
      },
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
  });

  it('says that no token is left', () => {
    const { refuse, take } = open();
    refuse('policy_refused', { text: 'no access' });
    const [{ note } = { note: '' }] = take();
    assert.match(note, /^no access \(policy_refused\) No cached token is left\./);
  });

  it('is one of the scale set that the identity is not assigned to', () => {
    const { refuse, accept, take } = open();
    refuse('identity_not_assigned');
    accept();
    refuse('identity_refused');
    assert.deepEqual(
      take().map(({ kind }) => kind),
      ['identity_not_assigned aks-pool1-1-vmss', 'accepted aks-pool1-1-vmss', 'identity_refused'],
    );
  });

  it('is one for any number of refusals, and one every half an hour while they last', () => {
    const { clock, refuse, reasons } = open();
    for (let count = 0; count < 29; count++) {
      refuse();
      clock.advance(minuteMs);
    }
    assert.deepEqual(reasons(), ['CredentialRefused']);
    clock.advance(minuteMs);
    refuse();
    refuse();
    assert.deepEqual(reasons(), ['CredentialRefused']);
  });

  it('comes at once for another reason, and later if the first one had no room', () => {
    const { state, refuse, reasons } = open({ isQuiet: true });
    refuse();
    assert.deepEqual(reasons(), []);
    state.isQuiet = false;
    refuse();
    refuse('federation_refused');
    assert.deepEqual(reasons(), ['CredentialRefused', 'FederationRefused']);
  });

  it('does not exist for an outage, and for a service account', () => {
    const { refuse, reasons } = open();
    refuse('upstream_down');
    refuse('upstream_throttled');
    refuse('credential_refused', {}, { ...owner, kind: 'ServiceAccount' });
    assert.deepEqual(reasons(), []);
  });

  it('waits for a random time, and is left out if the identity is accepted meanwhile', () => {
    const { clock, events, state, refuse, accept, reasons } = open({
      random: 0.5,
      jitterMs: minuteMs,
    });
    state.leftMs = minuteMs;
    refuse();
    clock.advance(29_999);
    refuse();
    assert.deepEqual(reasons(), []);
    clock.advance(1);
    assert.deepEqual(reasons(), ['CredentialRefused']);
    refuse('identity_refused');
    refuse('credential_refused', {}, { ...owner, uid: 'uid-2' });
    accept({ ...owner, uid: 'uid-2' });
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['IdentityRefused']);
    refuse('credential_refused');
    events[Symbol.dispose]();
    assert.deepEqual(clock.armed, []);
  });
});

describe('the Event of an identity that its source accepts again', () => {
  it('comes once, after a refusal that was reported', () => {
    const { refuse, accept, take } = open();
    accept();
    assert.deepEqual(take(), []);
    refuse();
    take();
    accept();
    accept();
    const [event, ...others] = take();
    assert.deepEqual(others, []);
    assert.deepEqual(
      [event?.type, event?.reason, event?.action, event?.sharedForMs, event?.regarding.uid],
      ['Normal', 'IdentityAccepted', 'GetToken', minuteMs, 'uid-1'],
    );
    refuse();
    assert.deepEqual(
      take().map(({ reason }) => reason),
      ['CredentialRefused'],
    );
  });

  it('comes after a refusal of pods, though its Event was left out: theirs were not', () => {
    const { clock, refuse, accept, reasons } = open({ random: 0.5, jitterMs: minuteMs });
    refuse();
    accept();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['IdentityAccepted']);
  });

  it('is left out if the identity is refused again meanwhile', () => {
    const { clock, refuse, accept, reasons } = open({ random: 0.5, jitterMs: minuteMs });
    refuse();
    clock.advance(minuteMs);
    accept();
    refuse();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['CredentialRefused']);
    accept();
    accept();
    clock.advance(minuteMs);
    assert.deepEqual(reasons(), ['IdentityAccepted']);
  });

  it('is forgotten for the one that was refused longest ago, of thousands', () => {
    const { clock, refuse, accept, reasons } = open({ jitterMs: minuteMs });
    for (let count = 0; count <= 2_000; count++) {
      refuse('credential_refused', {}, { ...owner, uid: String(count) });
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
  const names = new Map<string, number>();
  const writesInSecond = new Map<number, number>();
  const nodes = Array.from({ length: 5_000 }, (_, at) => {
    const random = (): number => at / 5_000;
    const log = (): void => undefined;
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
      clock: {
        ...stillClock,
        monotonicMs: () => clock.monotonicMs(),
        wallMs: () => clock.wallMs(),
      },
      instance,
      random,
      log: { debug: log, info: log, warn: log, error: log },
    });
    return new IdentityEvents({ events: writer, clock, node: instance, random, jitterMs: 30_000 });
  });
  const refusal: SourceRefusal = {
    identity: { kind: 'unnamed' },
    resource: 'https://vault.azure.net',
    failure: { reason: 'identity_not_assigned', description: 'no', cooldownMs: 0 },
    sinceWallMs: 0,
    lastWallMs: 0,
  };
  for (const each of nodes) each.refused(owner, refusal, () => 60_000);
  assert.equal(names.size, 0);
  for (let second = 0; second < 30; second++) {
    clock.advance(1_000);
    await new Promise(setImmediate);
  }
  assert.deepEqual([...names.values()], [5_000]);
  assert.ok(Math.max(...writesInSecond.values()) <= 170);
});
