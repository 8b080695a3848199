import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { CallerConnection, type FindCgroupUid } from '../../../../src/nmi/callers/caller.ts';
import { PodPlaces } from '../../../../src/nmi/callers/place.ts';
import type { Attestation, Place } from '../../../../src/redirect/redirect.ts';
import { CgroupIndex } from '../../../../src/redirect/cgroup/cgroup-index.ts';
import { cgroupIdOf } from '../../../../src/redirect/cgroup/cgroup-tree.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const nodeIp = '10.224.0.4';

function indexOf(...pods: readonly Pod[]): PodIndex {
  const index = new PodIndex(new HandClock());
  index.replace(pods);
  return index;
}

/** The real mapping in the kernel: the pod of each cgroup. */
function cgroups(truth: Readonly<Record<number, string>>): FindCgroupUid {
  return (id, candidates) => candidates.find((uid) => truth[Number(id)] === uid);
}

function attested(
  remoteIp: string,
  cgroupId: number | bigint,
  find: FindCgroupUid,
  localAddress = '169.254.25.79',
): CallerConnection {
  const attestation = { kind: 'attested', cgroupId: BigInt(cgroupId) } as const;
  return new CallerConnection({ remoteIp, localIp: localAddress }, attestation, find);
}

function podNameOf(connection: CallerConnection, pods: PodIndex): string {
  const caller = connection.resolve(pods);
  return caller.kind === 'pod' ? caller.pod.name : caller.kind;
}

describe('an attested caller', () => {
  const one = createPod({ name: 'one', ips: ['10.0.0.1'] });
  const two = createPod({ name: 'two', ips: ['10.0.0.2'] });
  const find = cgroups({ 1: one.uid, 2: two.uid, 3: 'uid-host', 4: 'static-hash' });

  it('is the pod of its cgroup, if the address also belongs to that pod', () => {
    const pods = indexOf(one, two);
    assert.equal(podNameOf(attested('10.0.0.1', 1, find), pods), 'one');
    assert.equal(podNameOf(attested('::ffff:10.0.0.2', 2, find), pods), 'two');
  });

  it('is unknown with the address of another pod or of none, or with an unknown cgroup', () => {
    const pods = indexOf(one, two);
    assert.equal(podNameOf(attested('10.0.0.2', 1, find), pods), 'other-cgroup');
    assert.equal(podNameOf(attested('10.0.0.9', 1, find), pods), 'unknown');
    assert.equal(podNameOf(attested('10.0.0.1', 99, find), pods), 'other-cgroup');
  });

  it('is identified when two pods claim one address', () => {
    const twin = createPod({ name: 'twin', ips: ['10.0.0.1'] });
    const both = cgroups({ 1: one.uid, 5: twin.uid });
    const pods = indexOf(one, twin);
    assert.equal(podNameOf(attested('10.0.0.1', 5, both), pods), 'twin');
    assert.equal(podNameOf(attested('10.0.0.1', 1, both), pods), 'one');
    assert.equal(podNameOf(attested('10.0.0.1', 2, both), pods), 'other-cgroup');
  });

  it('on the host network is identified by its cgroup alone, a static pod by the kubelet’s name', () => {
    const host = createPod({ name: 'host', hostNetwork: true, ips: [nodeIp] });
    const fixed = createPod({
      name: 'static',
      hostNetwork: true,
      ips: [nodeIp],
      cgroupUid: 'static-hash',
    });
    const pods = indexOf(one, host, fixed);
    for (const [address, local] of [
      ['169.254.25.79', '169.254.25.79'],
      [nodeIp, '169.254.25.79'],
    ] as const) {
      assert.equal(podNameOf(attested(address, 3, find, local), pods), 'host');
      assert.equal(podNameOf(attested(address, 4, find, local), pods), 'static');
      assert.equal(
        podNameOf(attested(address, 1, find, local), pods),
        'other-cgroup',
        'not on the host',
      );
    }
  });

  it('is identified even if another pod claims its cgroup, but not if two static ones do', () => {
    const host = createPod({ name: 'host', hostNetwork: true, ips: [nodeIp] });
    const claimants = ['claimant', 'second'].map((name) =>
      createPod({ name, hostNetwork: true, ips: [nodeIp], cgroupUid: host.uid }),
    );
    const fixed = ['fixed', 'forged'].map((name) =>
      createPod({ name, hostNetwork: true, ips: [nodeIp], cgroupUid: 'static-hash' }),
    );
    // In either order of storing them.
    for (const pods of [
      indexOf(...claimants, host, ...fixed),
      indexOf(...fixed, host, ...claimants),
    ]) {
      assert.equal(podNameOf(attested(nodeIp, 3, find), pods), 'host');
      assert.equal(podNameOf(attested(nodeIp, 4, find), pods), 'ambiguous');
    }
    // A pod that alone claims the cgroup of another, on a separate address, is not that other pod.
    const alone = createPod({ name: 'alone', ips: ['10.0.0.7'], cgroupUid: one.uid });
    assert.equal(podNameOf(attested('10.0.0.1', 1, find), indexOf(one, alone)), 'one');
  });

  it('is refused if this mode records callers and has no record', () => {
    const connection = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'unattested' }, find);
    assert.equal(podNameOf(connection, indexOf(one)), 'unattested');
  });

  it('with an address only keeps its pod, and outlives that when the pod is deleted', () => {
    const pods = indexOf(one);
    const connection = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    assert.equal(podNameOf(connection, pods), 'one');
    assert.ok(!connection.hasOutlived(pods));
    pods.replace([createPod({ name: 'next', ips: ['10.0.0.1'] })]);
    assert.equal(podNameOf(connection, pods), 'outlived');
    assert.ok(connection.hasOutlived(pods));
  });

  it('keeps its pod: a new pod at its address is a different caller', () => {
    const pods = indexOf(one);
    const connection = attested('10.0.0.1', 1, find);
    assert.equal(podNameOf(connection, pods), 'one');
    const next = createPod({ name: 'next', ips: ['10.0.0.1'] });
    pods.replace([next]);
    assert.equal(podNameOf(connection, pods), 'other-cgroup');
    assert.equal(podNameOf(attested('10.0.0.1', 1, find), pods), 'other-cgroup');
  });
});

describe('an attested caller, by the real index of cgroups', () => {
  const uids = ['a', 'b', 'c', 'd'];
  /** The ID of each pod's cgroup, and the UID of the pod; the cgroup tree does not change. */
  const truth: { readonly id: bigint; readonly uid: string }[] = [];
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-caller-'));
    for (const uid of uids) {
      const path = join(folder, 'kubepods', 'burstable', `pod${uid}`);
      mkdirSync(path, { recursive: true });
      truth.push({ id: cgroupIdOf(path) ?? assert.fail(), uid });
    }
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  const anyPod = fc
    .record({
      uid: fc.constantFrom(...uids),
      ip: fc.constantFrom('10.0.0.1', '10.0.0.2'),
      hostNetwork: fc.boolean(),
    })
    .map(({ uid, ip, hostNetwork }) =>
      createPod({ name: uid, uid, hostNetwork, ips: [hostNetwork ? nodeIp : ip] }),
    );
  const anyStep = fc.oneof(
    { weight: 3, arbitrary: anyPod.map((pod) => ({ kind: 'upsert' as const, pod })) },
    { weight: 2, arbitrary: anyPod.map((pod) => ({ kind: 'remove' as const, pod })) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.nat({ max: 300 }) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('dial' as const),
        /** Often the address that its pod has then. */
        from: fc.constantFrom('own', 'own', '10.0.0.1', '10.0.0.2', nodeIp),
        /** A container, or a cgroup of no pod. */
        by: fc.nat({ max: 4 }),
      }),
    },
  );

  it('is never another pod, in any order of API events about reused addresses', () => {
    const outcomes = { right: 0, nobody: 0 };
    const anySteps = fc.array(anyStep, { minLength: 10, maxLength: 40, size: 'max' });
    fc.assert(
      // Too few entries, so that cgroups are evicted and searched again, or enough for all.
      fc.property(anySteps, fc.constantFrom(1, 3, 16_384), (steps, maxEntries) => {
        const pods = new PodIndex(new HandClock());
        let nowMs = 0;
        const clock = { monotonicMs: () => nowMs };
        const index = new CgroupIndex(() => join(folder, 'kubepods'), clock, maxEntries);
        const find: FindCgroupUid = (id, candidates) => index.resolve(id, candidates);
        const open: { readonly by: string | undefined; readonly connection: CallerConnection }[] =
          [];
        for (const step of steps) {
          if (step.kind === 'upsert') pods.upsert(step.pod);
          else if (step.kind === 'remove') pods.remove(step.pod);
          else if (step.kind === 'pass') nowMs += step.ms;
          else {
            const by = truth[step.by];
            const [own = nodeIp] = pods.byUid(by?.uid ?? '')?.ips ?? [];
            const from = step.from === 'own' ? own : step.from;
            open.push({ by: by?.uid, connection: attested(from, by?.id ?? 1n, find) });
          }
          for (const { by, connection } of open) {
            const caller = connection.resolve(pods);
            if (caller.kind === 'pod') assert.equal(caller.pod.uid, by);
            outcomes[caller.kind === 'pod' ? 'right' : 'nobody'] += 1;
          }
        }
      }),
      { numRuns: 2_000 },
    );
    // The test is meaningful only if many are found. Each is five times as many, or more.
    assert.ok(outcomes.right > 10_000, JSON.stringify(outcomes));
    assert.ok(outcomes.nobody > 10_000, JSON.stringify(outcomes));
  });
});

describe('a caller without a matching record, with a link of its own', () => {
  const [pod, proxy] = ['pod', 'proxy'].map((name, at) =>
    createPod({ name, ips: [`10.0.0.${at + 1}`] }),
  );
  assert.ok(pod !== undefined && proxy !== undefined);
  const find = cgroups({ 1: pod.uid, 2: proxy.uid });
  const ownLink = { link: 5 };

  function open(placeOf = (ip: string): Place => ({ link: ip === '10.0.0.1' ? 5 : 6 })) {
    const clock = new HandClock();
    const pods = new PodIndex(clock);
    const readPod = (): Promise<undefined> => Promise.resolve(undefined);
    const places = new PodPlaces({ pods, clock, placeOf, hasLink: () => true, readPod });
    for (const each of [pod, proxy]) if (each !== undefined) pods.upsert(each);
    return (attestation: Attestation, remoteIp = '10.0.0.1') => {
      const connection = new CallerConnection({ remoteIp }, attestation, find);
      const caller = connection.resolve(pods, places);
      const name = caller.kind === 'pod' ? caller.pod.name : caller.kind;
      return [name, connection.identifiedBy, connection.limitKey] as const;
    };
  }

  it('is the pod of its address, counted as that pod', () => {
    const byLink = { kind: 'by-link', place: ownLink } as const;
    assert.deepEqual(open()(byLink), ['pod', 'link', `pod ${pod.uid}`]);
  });

  it('is no pod from the link of another pod, or where pods share the link', () => {
    const [name, by] = open()({ kind: 'by-link', place: { link: 7 } });
    assert.deepEqual([name, by], ['misplaced', 'link']);
    const shared = open(() => ownLink);
    assert.deepEqual(shared({ kind: 'by-link', place: ownLink }).slice(0, 2), [
      'unattested',
      'link',
    ]);
    const connection = new CallerConnection(
      { remoteIp: '10.0.0.1' },
      { kind: 'by-link', place: ownLink },
    );
    assert.equal(connection.resolve(indexOf(pod)).kind, 'unattested', 'without known places');
  });

  it('is the pod that a proxy of another pod relays for, by a direct connect only', () => {
    const relayed = { kind: 'attested', cgroupId: 2n, isDirect: true, place: ownLink } as const;
    assert.deepEqual(open()(relayed).slice(0, 2), ['pod', 'link']);
    assert.deepEqual(open()({ ...relayed, cgroupId: 1n }).slice(0, 2), ['pod', 'cgroup']);
    // The record of another pod is never overruled otherwise.
    assert.deepEqual(open()({ kind: 'attested', cgroupId: 2n, isDirect: true })[0], 'other-cgroup');
    assert.deepEqual(
      open()({ kind: 'attested', cgroupId: 2n, isDirect: false })[0],
      'other-cgroup',
    );
  });
});

describe('the limit key of a caller', () => {
  const keyOf = (remoteIp: string, localAddress: string, cgroupId?: bigint): string =>
    new CallerConnection(
      { remoteIp, localIp: localAddress },
      cgroupId === undefined ? { kind: 'by-address' } : { kind: 'attested', cgroupId },
    ).limitKey;
  const own = '169.254.25.79';

  it('is its address, for pods with their own network', () => {
    assert.equal(keyOf('10.244.0.5', own), '10.244.0.5');
    assert.equal(keyOf('::ffff:10.244.0.5', own, 7n), '10.244.0.5');
    // The agent on loopback, as in tests.
    assert.equal(keyOf('127.0.0.11', '127.0.0.1'), '127.0.0.11');
  });

  it('is the cgroup on the host network, or the node, for any source address', () => {
    assert.equal(keyOf(own, own, 7n), 'cgroup 7');
    assert.equal(keyOf('127.0.0.5', own, 7n), 'cgroup 7');
    assert.equal(keyOf('127.0.0.5', own), 'node');
    assert.equal(keyOf('127.8.9.1', own), 'node');
  });

  it('is the pod once that is known, and does not change again', () => {
    const pods = new PodIndex(new HandClock());
    const connection = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    connection.resolve(pods);
    assert.equal(connection.limitKey, '10.0.0.1');
    const pod = createPod({ uid: 'uid-1', ips: ['10.0.0.1'] });
    pods.upsert(pod);
    connection.resolve(pods);
    assert.equal(connection.limitKey, 'pod uid-1');
    pods.remove(pod);
    connection.resolve(pods);
    assert.equal(connection.limitKey, 'pod uid-1');
  });
});

describe('a caller by its address and place', () => {
  const ip = '10.0.0.1';
  const old = createPod({ name: 'old', ips: [ip] });
  const next = createPod({ name: 'next', ips: [ip] });

  function open() {
    const clock = new HandClock();
    const pods = new PodIndex(clock);
    const places = new PodPlaces({
      pods,
      clock,
      placeOf: () => 'unknown',
      hasLink: () => false,
      readPod: (pod) => Promise.resolve(pods.byUid(pod.uid)),
    });
    const connect = (link: number): CallerConnection =>
      new CallerConnection({ remoteIp: ip }, { kind: 'by-address', place: { link } });
    const nameOf = (connection: CallerConnection): string => {
      const caller = connection.resolve(pods, places);
      return caller.kind === 'pod' ? caller.pod.name : caller.kind;
    };
    return { clock, pods, connect, nameOf };
  }

  it('is not the previous pod, and becomes the new one on the same connection when that is known', () => {
    const { pods, connect, nameOf } = open();
    pods.upsert(old);
    const older = connect(5);
    assert.equal(nameOf(older), 'old');
    const newer = connect(6);
    assert.equal(nameOf(newer), 'misplaced');
    assert.equal(newer.limitKey, ip, 'not counted for another pod');
    assert.ok(!newer.hasOutlived(pods));
    pods.upsert(next);
    assert.equal(nameOf(newer), 'ambiguous');
    pods.remove(old);
    assert.equal(nameOf(newer), 'next');
    assert.equal(nameOf(older), 'outlived');
  });

  it('is resolved again while it is misplaced, because a confirmed move does not change the index', async () => {
    const { clock, pods, connect, nameOf } = open();
    pods.upsert(old);
    assert.equal(nameOf(connect(5)), 'old');
    const moved = connect(6);
    assert.equal(nameOf(moved), 'misplaced');
    clock.advance(15_000);
    assert.equal(nameOf(moved), 'misplaced');
    await setImmediate();
    assert.equal(nameOf(moved), 'old');
  });

  it('is the pod of its address without a known place, as in an explanation', () => {
    const { pods, connect, nameOf } = open();
    pods.upsert(old);
    assert.equal(nameOf(connect(5)), 'old');
    assert.equal(nameOf(new CallerConnection({ remoteIp: ip }, { kind: 'by-address' })), 'old');
  });

  it('never gets the identity of another pod that has connected before, however late the events', () => {
    const step = fc.record({
      /** At one of three addresses: the owner changes, or the owner opens a connection. */
      at: fc.integer({ min: 0, max: 2 }),
      kind: fc.constantFrom('change', 'connect', 'connect', 'event', 'event'),
    });
    const anySteps = fc.array(step, { minLength: 10, maxLength: 40, size: 'max' });
    let [right, refused] = [0, 0];
    fc.assert(
      fc.property(anySteps, (steps) => {
        const clock = new HandClock();
        const pods = new PodIndex(clock);
        const links = new Set<number>();
        const holders: { uid: string; link: number; ip: string }[] = [];
        const events: (() => void)[] = [];
        const seen = new Set<string>();
        let count = 0;
        const places = new PodPlaces({
          pods,
          clock,
          placeOf: () => 'unknown',
          hasLink: (link) => links.has(link),
          readPod: () => Promise.resolve(undefined),
        });
        const opened: { uid: string; connection: CallerConnection }[] = [];
        for (const { at, kind } of steps) {
          clock.advance(10_000);
          const holder = holders[at];
          if (kind === 'event') {
            events.shift()?.();
          } else if (kind === 'change' || holder === undefined) {
            if (holder !== undefined) {
              links.delete(holder.link);
              events.push(() =>
                pods.remove({ namespace: 'default', name: holder.uid, uid: holder.uid }),
              );
            }
            count += 1;
            const fresh = { uid: `uid-${count}`, link: count, ip: `10.0.0.${at + 1}` };
            holders[at] = fresh;
            links.add(fresh.link);
            const pod = createPod({ name: fresh.uid, uid: fresh.uid, ips: [fresh.ip] });
            events.push(() => pods.upsert(pod));
          } else {
            const { uid, link } = holder;
            const attestation = { kind: 'by-address', place: { link } } as const;
            opened.push({
              uid,
              connection: new CallerConnection({ remoteIp: holder.ip }, attestation),
            });
          }
          for (const { uid, connection } of opened) {
            const caller = connection.resolve(pods, places);
            if (caller.kind !== 'pod') {
              refused += 1;
              continue;
            }
            right += 1;
            if (caller.pod.uid === uid) seen.add(uid);
            // The earlier pod never connected: the first caller is taken for it.
            else assert.ok(!seen.has(caller.pod.uid), `${uid} was taken for ${caller.pod.uid}`);
          }
        }
      }),
      { numRuns: 2_000 },
    );
    // Each is ten times as many, or more.
    assert.ok(right > 2_000, `${right}`);
    assert.ok(refused > 2_000, `${refused}`);
  });
});
