import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import type { Pod, PodPhase } from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const ip = '10.244.0.5';

function createIndex(...pods: readonly Pod[]) {
  const clock = new HandClock(1_000_000);
  const index = new PodIndex(clock);
  for (const pod of pods) index.upsert(pod);
  return { clock, index };
}

function uidByIp(index: PodIndex, address = ip): string {
  const lookup = index.byIp(address);
  return lookup.kind === 'pod' ? lookup.pod.uid : lookup.kind;
}

describe('a pod by its address', () => {
  it('is found by each of its addresses, however the kubelet spelled it', () => {
    const { index } = createIndex(createPod({ ips: [ip, '2001:DB8:0::5', '::ffff:10.1.1.1'] }));
    for (const address of [ip, '2001:db8::5', '10.1.1.1']) {
      assert.equal(uidByIp(index, address), 'uid-pod');
    }
    assert.equal(index.stats.ips, 3);
  });

  it('is found in every phase in which it owns its address', () => {
    const expected: Record<PodPhase, string> = {
      Pending: 'uid-pod',
      Running: 'uid-pod',
      Unknown: 'uid-pod',
      Succeeded: 'unknown',
      Failed: 'unknown',
    };
    for (const [phase, uid] of Object.entries(expected) as [PodPhase, string][]) {
      const { index } = createIndex(createPod({ ips: [ip], phase }));
      assert.equal(uidByIp(index), uid, phase);
      assert.equal(index.byUid('uid-pod')?.phase, phase);
    }
  });

  it('is the same stored object every time', () => {
    const { index } = createIndex(createPod({ ips: [ip] }));
    assert.equal(index.byIp(ip), index.byIp(ip));
    assert.equal(index.byIp('10.9.9.9'), index.byIp('10.8.8.8'));
  });
});

describe('an address that is used again', () => {
  it('belongs to no pod while two live pods have it, and to the remaining one when one ends', () => {
    const { index } = createIndex(
      createPod({ name: 'b', ips: [ip] }),
      createPod({ name: 'a', ips: [ip] }),
    );
    const lookup = index.byIp(ip);
    assert.equal(lookup.kind, 'ambiguous');
    assert.deepEqual(lookup.kind === 'ambiguous' && lookup.pods.map(({ name }) => name), [
      'a',
      'b',
    ]);
    assert.equal(index.stats.ambiguousIps, 1);

    index.upsert(createPod({ name: 'a', ips: [ip], phase: 'Failed' }));
    assert.equal(uidByIp(index), 'uid-b');
    assert.equal(index.stats.ambiguousIps, 0);
    assert.equal(index.byIp(ip), index.byIp(ip));
  });
});

describe('a pod that is created again under its name', () => {
  it('is one object if the same uid turns up under another name', () => {
    const { index } = createIndex(
      createPod({ name: 'a', uid: 'same', ips: [ip] }),
      createPod({ name: 'b', uid: 'same', ips: [ip] }),
    );
    assert.equal(index.byName('default', 'a'), undefined);
    assert.equal(uidByIp(index), 'same');
    index.replace([
      createPod({ name: 'c', uid: 'same', ips: [ip] }),
      createPod({ name: 'd', uid: 'same', ips: [ip] }),
    ]);
    assert.deepEqual(
      [...index.all()].map(({ name }) => name),
      ['d'],
    );
  });
});

describe('the time since which a pod has its binding label', () => {
  const labelled = (value: string, more: Partial<Pod> = {}) =>
    createPod({ labels: { aadpodidbinding: value }, createdAtWallMs: 500, ...more });

  it('is the time when the change was seen, and other changes do not move it', () => {
    const { clock, index } = createIndex(labelled('a'));
    clock.advance(10);
    index.upsert(labelled('b'));
    clock.advance(10);
    index.upsert(labelled('b', { ips: [ip], terminating: true }));
    assert.equal(index.labelledSinceWallMs('uid-pod'), 1_000_010);
  });
});

// ---- against a naive model ------------------------------------------------------------------

type Event =
  | { readonly kind: 'upsert'; readonly pod: Pod }
  | { readonly kind: 'remove'; readonly name: string; readonly uid: string }
  | { readonly kind: 'replace'; readonly pods: readonly Pod[] }
  | { readonly kind: 'wait'; readonly ms: number };

const names = ['a', 'b', 'c'] as const;
const uids = names.flatMap((name) => [1, 2, 3].map((life) => `${name}-${life}`));
const spellings: Readonly<Record<string, readonly string[]>> = {
  '10.0.0.1': ['10.0.0.1', '::ffff:10.0.0.1'],
  '10.0.0.2': ['10.0.0.2', '::ffff:a00:2'],
  'fd00::1': ['fd00::1', 'FD00:0:0::1'],
};

const anyPod: fc.Arbitrary<Pod> = fc
  .record({
    namespace: fc.constantFrom('default', 'other'),
    name: fc.constantFrom(...names),
    life: fc.integer({ min: 1, max: 3 }),
    ips: fc.array(fc.constantFrom(...Object.values(spellings).flat(), 'no address'), {
      maxLength: 3,
    }),
    label: fc.constantFrom(undefined, '', 'x', 'y'),
    phase: fc.constantFrom<PodPhase>('Pending', 'Running', 'Unknown', 'Succeeded', 'Failed'),
    hostNetwork: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, fc.constant(true)),
    terminating: fc.boolean(),
  })
  .map(({ life, label, ...rest }) => ({
    ...rest,
    uid: `${rest.namespace}/${rest.name}-${life}`,
    resourceVersion: '1',
    cgroupUid: `${rest.namespace}/${rest.name}-${life}`,
    labels: label === undefined ? {} : { aadpodidbinding: label },
    serviceAccount: 'default',
    createdAtWallMs: life,
  }));

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: anyPod.map((pod) => ({ kind: 'upsert', pod }) as const) },
  { weight: 3, arbitrary: anyPod.map(({ name, uid }) => ({ kind: 'remove', name, uid }) as const) },
  {
    weight: 1,
    arbitrary: fc
      .array(anyPod, { maxLength: 5 })
      .map((pods) => ({ kind: 'replace', pods }) as const),
  },
  { weight: 1, arbitrary: fc.nat(50).map((ms) => ({ kind: 'wait', ms }) as const) },
);

/** The pods after a log of events, and since when each has its label, without any index. */
function replay(log: readonly Event[]): readonly { pod: Pod; since: number }[] {
  let now = 1_000_000;
  let rows: readonly { pod: Pod; since: number }[] = [];
  const put = (kept: typeof rows, before: typeof rows, pod: Pod): typeof rows => {
    const old = before.find((row) => row.pod.uid === pod.uid);
    const label = (of: Pod) => of.labels['aadpodidbinding'];
    const since =
      old === undefined ? pod.createdAtWallMs : label(old.pod) === label(pod) ? old.since : now;
    const others = kept.filter(
      (row) => row.pod.namespace !== pod.namespace || row.pod.name !== pod.name,
    );
    return [...others, { pod, since }];
  };
  for (const step of log) {
    if (step.kind === 'wait') now += step.ms;
    if (step.kind === 'upsert') rows = put(rows, rows, step.pod);
    if (step.kind === 'remove') rows = rows.filter((row) => row.pod.uid !== step.uid);
    if (step.kind === 'replace') {
      const before = rows;
      rows = step.pods.reduce<typeof rows>((kept, pod) => put(kept, before, pod), []);
    }
  }
  return rows;
}

function observe(index: PodIndex) {
  const pods = [...index.all()].sort((a, b) => (a.uid < b.uid ? -1 : 1));
  return {
    pods,
    since: pods.map(({ uid }) => index.labelledSinceWallMs(uid)),
    byIp: Object.keys(spellings).map((address) => index.byIp(address)),
    byName: ['default', 'other'].flatMap((namespace) =>
      names.map((name) => index.byName(namespace, name)),
    ),
    byUid: ['default', 'other'].flatMap((namespace) =>
      uids.map((uid) => index.byUid(`${namespace}/${uid}`)),
    ),
    stats: index.stats,
  };
}

function observeModel(log: readonly Event[]): ReturnType<typeof observe> {
  const rows = [...replay(log)].sort((a, b) => (a.pod.uid < b.pod.uid ? -1 : 1));
  const pods = rows.map(({ pod }) => pod);
  const isLive = ({ phase }: Pod) => phase !== 'Succeeded' && phase !== 'Failed';
  const byIp = Object.values(spellings).map((texts): ReturnType<PodIndex['byIp']> => {
    const owners = pods
      .filter((pod) => isLive(pod) && !pod.hostNetwork && pod.ips.some((t) => texts.includes(t)))
      .sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1));
    if (owners.length > 1) return { kind: 'ambiguous', pods: owners };
    return owners.length === 1 ? { kind: 'pod', pod: owners[0]! } : { kind: 'unknown' };
  });
  return {
    pods,
    since: rows.map(({ since }) => since),
    byIp,
    byName: ['default', 'other'].flatMap((namespace) =>
      names.map((name) => pods.find((p) => p.namespace === namespace && p.name === name)),
    ),
    byUid: ['default', 'other'].flatMap((namespace) =>
      uids.map((uid) => pods.find((pod) => pod.uid === `${namespace}/${uid}`)),
    ),
    stats: {
      pods: pods.length,
      ips: byIp.filter(({ kind }) => kind !== 'unknown').length,
      ambiguousIps: byIp.filter(({ kind }) => kind === 'ambiguous').length,
      hostNetwork: pods.filter(({ hostNetwork }) => hostNetwork).length,
    },
  };
}

describe('the pod index against a log of its events', () => {
  it('returns the same for every look-up as the log replayed from its start, after each event', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 30 }), (events) => {
        const { clock, index } = createIndex();
        const log: Event[] = [];
        const told: unknown[] = [];
        index.onChange((changedUids) => {
          told.push([changedUids.toSorted(), observe(index)]);
        });
        const byUid = () => new Map([...index.all()].map((pod) => [pod.uid, pod]));
        let before = observeModel(log);
        for (const step of events) {
          const { generation } = index;
          const podsBefore = byUid();
          told.length = 0;
          log.push(step);
          if (step.kind === 'wait') clock.advance(step.ms);
          if (step.kind === 'upsert') index.upsert(step.pod);
          if (step.kind === 'replace') index.replace(step.pods);
          if (step.kind === 'remove') {
            const namespace = step.uid.slice(0, step.uid.indexOf('/'));
            index.remove({ namespace, name: step.name, uid: step.uid });
          }
          const after = observeModel(log);
          assert.deepEqual(observe(index), after);
          const changed = isDeepStrictEqual(before, after) ? 0 : 1;
          const podsAfter = byUid();
          const either = [...new Set([...podsBefore.keys(), ...podsAfter.keys()])].toSorted();
          const others = either.filter((uid) => podsBefore.get(uid) !== podsAfter.get(uid));
          assert.deepEqual(told, changed === 0 ? [] : [[others, after]], 'once, and consistent');
          assert.equal(index.generation - generation, changed);
          before = after;
        }
      }),
      { numRuns: 500 },
    );
  });
});
