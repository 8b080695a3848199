import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { CallerConnection, type IdentifiedBy } from '../../../../src/nmi/callers/caller.ts';
import { identify } from '../../../../src/nmi/callers/identify.ts';
import { PodPlaces } from '../../../../src/nmi/callers/place.ts';
import { renderRefusal } from '../../../../src/nmi/grants/refusal-text.ts';
import type { Attestation } from '../../../../src/redirect/redirect.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function answerTo(attestation: Attestation) {
  const pods = new PodIndex(new HandClock(), assert.ifError);
  pods.replace([createPod({ ips: ['10.0.0.1'] })]);
  const connection = new CallerConnection({ remoteIp: '10.0.0.1' }, attestation);
  const clusterState = { pods, isSynced: () => true, trusts: () => true };
  const identified = identify(connection, clusterState);
  assert.ok(identified.kind === 'refused');
  return { isPending: identified.isPending, ...renderRefusal(identified) };
}

describe('a caller without an attestation', () => {
  it('gets the advice to retry on a new connection while look-ups are unavailable', () => {
    const why = 'the map of callers cannot be read';
    const answer = answerTo({ kind: 'unavailable', why });
    assert.equal(answer.status, 503);
    assert.equal(answer.reason, 'agent_not_synced');
    assert.equal(answer.retryAfterS, 1);
    assert.equal(answer.close, true);
    assert.equal(answer.isPending, false);
    assert.match(
      answer.body,
      /which pod opened this connection: the map of callers cannot be read/,
    );
  });

  it('is permanently refused if there is no record of it', () => {
    const answer = answerTo({ kind: 'unattested' });
    assert.equal(answer.status, 403);
    assert.equal(answer.reason, 'caller_unattested');
    assert.equal(answer.close, true);
    assert.match(answer.body, /its source address is not that of a pod/);
  });

  it('gets the option that refuses it, if one does', () => {
    const answer = answerTo({ kind: 'unattested', refusedBy: 'option' });
    assert.match(answer.body, /--unrecorded-callers=refuse/);
  });
});

const ip = '10.0.0.5';

function open() {
  const pods = new PodIndex(new HandClock());
  const state = { isSynced: true, trusts: true, failing: '' };
  const clusterState = {
    pods,
    whyBehind: (resource?: string) =>
      state.failing === (resource ?? state.failing) ? state.failing || undefined : undefined,
    isSynced: () => state.isSynced,
    trusts: (by: IdentifiedBy) => by === 'cgroup' || state.trusts,
    places: new PodPlaces({
      pods,
      clock: new HandClock(),
      placeOf: () => 'unknown',
      hasLink: () => true,
      readPod: () => Promise.resolve(undefined),
    }),
  };
  const connect = (attestation: Attestation = { kind: 'by-address' }) =>
    new CallerConnection({ remoteIp: ip }, attestation, () => 'cgroup-uid');
  /** A short summary, with a mark if waiting can help. */
  const ask = (connection = connect()): string => {
    const found = identify(connection, clusterState);
    if (found.kind === 'pod') return `pod ${found.pod.name}`;
    const why = 'why' in found.facts ? `, ${found.facts.why}` : '';
    return `${found.reason}, ${found.facts.about}${found.isPending ? ', pending' : ''}${why}`;
  };
  return { pods, state, connect, ask };
}

describe('the pod of a caller', () => {
  it('is the one with its address, once all objects are listed', () => {
    const { pods, state, ask } = open();
    pods.upsert(createPod({ name: 'p', ips: [ip] }));
    assert.equal(ask(), 'pod p');
    state.isSynced = false;
    assert.equal(ask(), 'agent_not_synced, agent-starting, pending');
  });

  it('may still become known', () => {
    const { state, ask } = open();
    assert.equal(ask(), 'pod_unknown, unknown-address, pending');
    state.isSynced = false;
    assert.equal(ask(), 'agent_not_synced, agent-starting, pending');
  });

  it('is not found, with the reason: the failing watch of pods, or of a kind that is not listed yet', () => {
    const { pods, state, ask } = open();
    state.failing = 'bindings';
    assert.equal(ask(), 'pod_unknown, unknown-address, pending');
    state.failing = 'pods';
    assert.equal(ask(), 'pod_unknown, unknown-address, pending, pods');
    state.isSynced = false;
    state.failing = 'bindings';
    assert.equal(ask(), 'agent_not_synced, agent-starting, pending, bindings');
    pods.upsert(createPod({ name: 'p', ips: [ip] }));
    state.isSynced = true;
    state.trusts = false;
    state.failing = 'pods';
    assert.equal(ask(), 'agent_not_synced, stale, pending, pods');
  });

  it('is not found by an address that may belong to another pod by now', () => {
    const { pods, state, connect, ask } = open();
    pods.upsert(createPod({ name: 'p', cgroupUid: 'cgroup-uid', ips: [ip] }));
    state.trusts = false;
    assert.equal(ask(), 'agent_not_synced, stale, pending');
    assert.equal(ask(connect({ kind: 'attested', cgroupId: 1n })), 'pod p', 'by its cgroup');
  });

  it('is not found by a link while the pods are not proven current', () => {
    const { pods, state, connect, ask } = open();
    pods.upsert(createPod({ name: 'p', ips: [ip] }));
    const byLink = () => connect({ kind: 'by-link', place: { link: 5 } });
    assert.equal(ask(byLink()), 'pod p');
    state.trusts = false;
    assert.equal(ask(byLink()), 'agent_not_synced, stale, pending');
  });

  it('is unknown at a place other than that of the pod, until the API server confirms it', () => {
    const { pods, connect, ask } = open();
    pods.upsert(createPod({ name: 'p', ips: [ip] }));
    assert.equal(ask(connect({ kind: 'by-address', place: { link: 5 } })), 'pod p');
    const other = connect({ kind: 'by-address', place: { link: 6 } });
    assert.equal(ask(other), 'pod_unknown, misplaced-address, pending');
  });

  it('is unknown while two pods have its address', () => {
    const { pods, ask } = open();
    for (const name of ['a', 'b']) pods.upsert(createPod({ name, ips: [ip] }));
    assert.equal(ask(), 'pod_ambiguous, shared-address, pending');
  });

  it('is permanently unknown if the kernel has no record of it', () => {
    const { state, connect, ask } = open();
    assert.equal(ask(connect({ kind: 'unattested' })), 'caller_unattested, unattested');
    const passing = connect({ kind: 'unattested', retryWhy: 'no room' });
    assert.equal(ask(passing), 'agent_not_synced, unavailable, no room');
    state.isSynced = false;
    assert.equal(ask(connect({ kind: 'unattested' })), 'caller_unattested, unattested');
  });

  it('is permanently unknown on a connection that has outlived its pod', () => {
    const { pods, connect, ask } = open();
    const connection = connect();
    pods.upsert(createPod({ name: 'a', ips: [ip] }));
    assert.equal(ask(connection), 'pod a');
    pods.replace([createPod({ name: 'b', ips: [ip] })]);
    assert.equal(ask(connection), 'connection_outlived_pod, outlived');
  });
});
