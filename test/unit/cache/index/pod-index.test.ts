import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
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

  it('is found while it terminates', () => {
    const { index } = createIndex(createPod({ ips: [ip], terminating: true }));
    assert.equal(uidByIp(index), 'uid-pod');
  });

  it('is not found when it is on the host network, but is found by name and uid', () => {
    const { index } = createIndex(createPod({ ips: [ip], hostNetwork: true }));
    assert.equal(uidByIp(index), 'unknown');
    assert.equal(index.byName('default', 'pod')?.uid, 'uid-pod');
    assert.equal(index.byUid('uid-pod')?.name, 'pod');
    assert.equal(index.stats.hostNetwork, 1);
  });

  it('is found once when it lists one address twice, and invalid addresses are ignored', () => {
    const { index } = createIndex(createPod({ ips: [ip, `::ffff:${ip}`, '', 'none'] }));
    assert.equal(uidByIp(index), 'uid-pod');
    assert.equal(index.stats.ips, 1);
  });

  it('is the same stored object every time', () => {
    const { index } = createIndex(createPod({ ips: [ip] }));
    assert.equal(index.byIp(ip), index.byIp(ip));
    assert.equal(index.byIp('10.9.9.9'), index.byIp('10.8.8.8'));
  });

  it('loses an address that its status no longer lists', () => {
    const { index } = createIndex(createPod({ ips: [ip] }), createPod({ ips: ['10.244.0.6'] }));
    assert.equal(uidByIp(index), 'unknown');
    assert.equal(uidByIp(index, '10.244.0.6'), 'uid-pod');
  });
});

describe('an address that is used again', () => {
  it('belongs to the new pod when the old one is terminal', () => {
    const { index } = createIndex(
      createPod({ name: 'old', ips: [ip], phase: 'Succeeded' }),
      createPod({ name: 'new', ips: [ip] }),
    );
    assert.equal(uidByIp(index), 'uid-new');
  });

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

  it('stays refused while two of three live pods have it', () => {
    const { index } = createIndex(...['a', 'b', 'c'].map((name) => createPod({ name, ips: [ip] })));
    index.remove(createPod({ name: 'b' }));
    assert.equal(uidByIp(index), 'ambiguous');
    index.remove(createPod({ name: 'a' }));
    assert.equal(uidByIp(index), 'uid-c');
    index.remove(createPod({ name: 'c' }));
    assert.equal(uidByIp(index), 'unknown');
  });
});

describe('a pod that is created again under its name', () => {
  it('replaces its predecessor', () => {
    const { index } = createIndex(
      createPod({ uid: 'old', ips: [ip] }),
      createPod({ uid: 'new', ips: ['10.244.0.6'] }),
    );
    assert.equal(uidByIp(index), 'unknown');
    assert.equal(index.byUid('old'), undefined);
    assert.equal(index.byName('default', 'pod')?.uid, 'new');
    assert.equal(index.stats.pods, 1);
  });

  it('is not affected by the late delete of its predecessor', () => {
    const { index } = createIndex(createPod({ uid: 'new', ips: [ip] }));
    const { generation } = index;
    index.remove(createPod({ uid: 'old' }));
    assert.equal(uidByIp(index), 'new');
    assert.equal(index.generation, generation);
  });

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

  it('is its creation when the pod already had the label when first seen', () => {
    const { index } = createIndex(labelled('a'));
    assert.equal(index.labelledSinceWallMs('uid-pod'), 500);
  });

  it('is the time when the change was seen, and other changes do not move it', () => {
    const { clock, index } = createIndex(labelled('a'));
    clock.advance(10);
    index.upsert(labelled('b'));
    clock.advance(10);
    index.upsert(labelled('b', { ips: [ip], terminating: true }));
    assert.equal(index.labelledSinceWallMs('uid-pod'), 1_000_010);
  });

  it('counts losing the label as a change', () => {
    const { clock, index } = createIndex(labelled('a'));
    clock.advance(10);
    index.upsert(createPod({ createdAtWallMs: 500 }));
    assert.equal(index.labelledSinceWallMs('uid-pod'), 1_000_010);
  });

  it('survives a replace for the same uid and starts anew for another', () => {
    const { clock, index } = createIndex(labelled('a'));
    clock.advance(10);
    index.upsert(labelled('b'));
    clock.advance(10);
    index.replace([labelled('b', { ips: [ip] })]);
    assert.equal(index.labelledSinceWallMs('uid-pod'), 1_000_010);
    index.replace([labelled('c')]);
    assert.equal(index.labelledSinceWallMs('uid-pod'), 1_000_020);
    index.replace([labelled('c', { uid: 'other', createdAtWallMs: 700 })]);
    assert.equal(index.labelledSinceWallMs('other'), 700);
    assert.equal(index.labelledSinceWallMs('uid-pod'), 0);
  });
});

describe('listeners of the pod index', () => {
  it('are called once for each step that changed something, with the index consistent', () => {
    const { index } = createIndex();
    const seen: string[] = [];
    index.onChange(() => {
      seen.push(`${index.generation}:${uidByIp(index)}`);
    });
    const pod = createPod({ ips: [ip] });
    index.upsert(pod);
    index.upsert(structuredClone(pod));
    index.replace([structuredClone(pod)]);
    index.replace([]);
    index.replace([]);
    index.remove(pod);
    assert.deepEqual(seen, ['1:uid-pod', '2:unknown']);
  });

  it('never see a half-filled index during a replace', () => {
    const names = ['a', 'b', 'c', 'd'];
    const pods = names.map((name, at) => createPod({ name, ips: [`10.0.0.${at}`] }));
    const { index } = createIndex(...pods);
    const sizes: number[] = [];
    index.onChange(() => {
      sizes.push([...index.all()].length);
    });
    index.replace(pods.map((pod) => ({ ...pod, terminating: true })));
    assert.deepEqual(sizes, [4]);
  });

  it('do not affect the index when one throws', () => {
    const errors: unknown[] = [];
    const index = new PodIndex(new HandClock(), (error) => errors.push(error));
    let told = 0;
    const failure = new Error('listener');
    index.onChange(() => {
      throw failure;
    });
    index.onChange(() => {
      told++;
    });
    index.upsert(createPod({ ips: [ip] }));
    assert.equal(uidByIp(index), 'uid-pod');
    assert.equal(told, 1);
    assert.deepEqual(errors, [failure]);
  });

  it('are not called any more once unsubscribed, even by another listener in the same step', () => {
    const { index } = createIndex();
    const told: string[] = [];
    index.onChange(() => {
      told.push('first');
      stopSecond();
    });
    const second = (): void => {
      told.push('second');
    };
    const stopSecond = index.onChange(second);
    index.onChange(second);
    index.upsert(createPod());
    assert.deepEqual(told, ['first', 'second']);
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
    phase: fc.constantFrom<PodPhase>(
      'Pending',
      'Running',
      'Running',
      'Unknown',
      'Succeeded',
      'Failed',
    ),
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
  { weight: 6, arbitrary: anyPod.map((pod) => ({ kind: 'upsert' as const, pod })) },
  {
    weight: 3,
    arbitrary: anyPod.map(({ name, uid }) => ({ kind: 'remove' as const, name, uid })),
  },
  {
    weight: 1,
    arbitrary: fc
      .array(anyPod, { maxLength: 5 })
      .map((pods) => ({ kind: 'replace' as const, pods })),
  },
  { weight: 1, arbitrary: fc.nat(50).map((ms) => ({ kind: 'wait' as const, ms })) },
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

function isEqual(a: unknown, b: unknown): boolean {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

describe('the pod index against a log of its events', () => {
  it('returns the same for every look-up as the log replayed from its start, after each event', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 30 }), (events) => {
        const { clock, index } = createIndex();
        const log: Event[] = [];
        const told: (readonly string[])[] = [];
        index.onChange((changedUids) => {
          told.push(changedUids.toSorted());
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
          const changed = isEqual(before, after) ? 0 : 1;
          const podsAfter = byUid();
          const either = [...new Set([...podsBefore.keys(), ...podsAfter.keys()])].toSorted();
          const others = either.filter((uid) => podsBefore.get(uid) !== podsAfter.get(uid));
          assert.deepEqual(told, changed === 0 ? [] : [others]);
          assert.equal(index.generation - generation, changed);
          before = after;
        }
      }),
      { numRuns: 500 },
    );
  });
});
