import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openReadinessEvents } from '../../../src/nmi/admin/readiness-events.ts';
import type { OwnAccountOutcome } from '../../../src/nmi/kube/accounts/own-account.ts';
import type { EventDraft, ObjectReference } from '../../../src/nmi/kube/events/event.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

const inPod: OwnAccountOutcome = {
  kind: 'ok',
  serviceAccount: { namespace: 'kube-system', name: 'nmi' },
  pod: { name: 'nmi-x', uid: 'u' },
};

function open(account: OwnAccountOutcome = inPod) {
  const clock = new HandClock();
  const state: { missing: Record<string, string>; account: OwnAccountOutcome; asked: number } = {
    missing: { watches: 'pods is not listed' },
    account,
    asked: 0,
  };
  const recorded: string[] = [];
  const regarded: ObjectReference[] = [];
  const job = openReadinessEvents({
    events: {
      record: (regarding, kind, draft: () => Omit<EventDraft, 'regarding'>) => {
        const { type, reason, note } = draft();
        regarded.push(regarding);
        return recorded.push(`${kind}: ${type} ${reason} ${note}`) > 0;
      },
    },
    ownAccount: {
      get: () => {
        state.asked += 1;
        return Promise.resolve(state.account);
      },
    },
    readiness: () => ({ ready: Object.keys(state.missing).length === 0, missing: state.missing }),
    clock,
  });
  return { clock, state, recorded, regarded, job };
}

describe('the readiness of the agent', () => {
  it('is an Event on the agent’s own pod for each change', async () => {
    const { clock, state, recorded, regarded } = open();
    await pass(clock, 5_000);
    assert.deepEqual(recorded, [], 'a start is not a failure');
    state.missing = {};
    await pass(clock, 5_000);
    state.missing = { redirect: 'jump is missing', watches: 'stale' };
    await pass(clock, 5_000);
    state.missing = { redirect: 'jump is missing' };
    await pass(clock, 5_000);
    assert.deepEqual(recorded, [
      'Ready: Normal Ready The agent is ready: pods of this node get tokens.',
      'NotReady redirect watches: Warning NotReady The agent is not ready. redirect: jump is missing; ' +
        'watches: stale Fix: kubectl nmi doctor',
      'NotReady redirect: Warning NotReady The agent is not ready. redirect: jump is missing Fix: kubectl nmi doctor',
    ]);
    assert.deepEqual(regarded[0], {
      apiVersion: 'v1',
      kind: 'Pod',
      namespace: 'kube-system',
      name: 'nmi-x',
      uid: 'u',
    });
  });

  it('is reported when the start takes longer than 30 s', async () => {
    const { clock, recorded } = open();
    await pass(clock, 29_000);
    assert.deepEqual(recorded, []);
    await pass(clock, 2_000);
    assert.equal(recorded.length, 1);
    assert.match(recorded[0] ?? '', /^NotReady watches: Warning NotReady .*pods is not listed/);
  });

  it('is not reported by an agent outside a pod, which is looked up once', async () => {
    for (const account of [
      { ...inPod, pod: undefined },
      { kind: 'no_service_account', username: 'admin' },
      { kind: 'forbidden', said: 'no' },
    ] as const) {
      const { clock, state, recorded } = open(account);
      state.missing = {};
      await pass(clock, 60_000);
      assert.deepEqual([recorded, state.asked], [[], 1]);
      assert.deepEqual(clock.armed, []);
    }
  });

  it('waits for the API server to report the agent’s pod, without constant requests', async () => {
    const { clock, state, recorded } = open({
      kind: 'unavailable',
      problem: 'NETWORK',
      retryAfterMs: undefined,
    });
    state.missing = {};
    await pass(clock, 60_000);
    assert.deepEqual(recorded, []);
    assert.ok(state.asked <= 5, String(state.asked));
    state.account = inPod;
    await pass(clock, 20_000);
    assert.equal(recorded.length, 1);
  });

  it('is not reported after disposal', async () => {
    const { clock, state, recorded, job } = open();
    job[Symbol.dispose]();
    state.missing = {};
    await pass(clock, 5_000);
    assert.deepEqual(recorded, []);
  });
});
