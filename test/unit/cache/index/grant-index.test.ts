import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { bindingLabel } from '../../../../src/cache/index/binding-label.ts';
import { GrantIndex, oldest, type PodGrants } from '../../../../src/cache/index/grant-index.ts';
import type {
  Binding,
  Exception,
  Identity,
  ObjectRef,
  ObjectStore,
  Pod,
} from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function createIndexes(...stored: readonly Pod[]) {
  const clock = new HandClock(1_000_000);
  const pods = new PodIndex(clock);
  pods.replace(stored);
  return { clock, pods, grants: new GrantIndex(pods) };
}

const labelled = (value: string, more: Partial<Pod> = {}): Pod =>
  createPod({ labels: { [bindingLabel]: value }, ...more });

/** The names of the pod's identities in order, or the kind of its grants. */
function summary(grants: PodGrants | undefined): string {
  if (grants?.kind !== 'bound') return grants?.kind ?? 'no such pod';
  return grants.identities.map(({ name }) => name).join(' ');
}

describe('the grants of a pod', () => {
  it('are the identities named by the bindings with its label', () => {
    const { grants } = createIndexes(labelled('label'));
    const identity = createIdentity();
    const binding = createBinding();
    grants.identities.upsert(identity);
    grants.bindings.upsert(binding);
    assert.deepEqual(grants.grantsOf('uid-pod'), {
      kind: 'bound',
      label: 'label',
      identities: [identity],
      byClientId: new Map([['client-of-identity', identity]]),
      byResourceId: new Map(),
      bindings: [binding],
      danglingBindings: [],
    });
    assert.equal(grants.grantsOf('other'), undefined);
  });

  it('are by the 200 oldest bindings after any change of one', () => {
    const nameOf = (at: number) => `b${String(at).padStart(3, '0')}`;
    const step = fc.record({
      at: fc.nat(219),
      createdAtWallMs: fc.nat(30),
      identityName: fc.constantFrom('one', 'two'),
      isRemoved: fc.boolean(),
    });
    const steps = fc.array(step, { maxLength: 60 });
    const first = fc.array(fc.nat(30), { minLength: 195, maxLength: 205 });
    fc.assert(
      fc.property(first, steps, (ages, changes) => {
        const { grants } = createIndexes(labelled('label'));
        grants.identities.replace(['one', 'two'].map((name) => createIdentity({ name })));
        const stored = new Map<string, Binding>();
        const put = (binding: Binding) => void stored.set(binding.name, binding);
        ages.forEach((createdAtWallMs, at) => {
          put(createBinding({ name: nameOf(at), identityName: 'one', createdAtWallMs }));
        });
        grants.bindings.replace([...stored.values()]);
        let before: readonly Binding[] | undefined;
        for (const { at, createdAtWallMs, identityName, isRemoved } of changes) {
          const { generation } = grants;
          const binding = createBinding({ name: nameOf(at), createdAtWallMs, identityName });
          if (isRemoved) {
            stored.delete(binding.name);
            grants.bindings.remove(binding);
          } else {
            put(binding);
            grants.bindings.upsert(binding);
          }
          const byAge = [...stored.values()].sort(
            (a, b) => a.createdAtWallMs - b.createdAtWallMs || (a.name < b.name ? -1 : 1),
          );
          const expected = byAge.slice(0, 200).sort((a, b) => (a.name < b.name ? -1 : 1));
          const found = grants.grantsOf('uid-pod');
          assert.ok(found?.kind === 'bound');
          assert.deepEqual(found.bindings, expected);
          if (isDeepStrictEqual(before, expected)) assert.equal(grants.generation, generation);
          before = expected;
          assert.deepEqual(
            new Set(found.identities.map(({ name }) => name)),
            new Set(expected.map((each) => each.identityName)),
          );
          assert.equal(grants.surplusBindings('default', 'label'), Math.max(0, stored.size - 200));
        }
      }),
      { numRuns: 50 },
    );
  });

  it('come from a binding for a service account to pods under it alone', () => {
    const robot = labelled('label', { name: 'robot', serviceAccount: 'robot' });
    const other = labelled('label', { name: 'other' });
    const { grants } = createIndexes(robot, other);
    const summaries = () => [robot, other].map(({ uid }) => summary(grants.grantsOf(uid)));
    grants.identities.upsert(createIdentity());
    grants.bindings.upsert(createBinding({ serviceAccount: 'robot' }));
    assert.deepEqual(summaries(), ['identity', 'no-binding']);
    grants.bindings.upsert(createBinding());
    assert.deepEqual(summaries(), ['identity', 'identity']);
    assert.equal(grants.grantsOf(robot.uid), grants.grantsOf(other.uid));
  });

  it('are none while an exception in the namespace names a label of the pod', () => {
    const { grants } = createIndexes(
      createPod({ labels: { [bindingLabel]: 'label', app: 'web' } }),
    );
    grants.identities.upsert(createIdentity());
    grants.bindings.upsert(createBinding());
    for (const [exception, expected] of [
      [{ podLabels: { app: 'WEB', tier: 'else' } }, 'exception'],
      [{ podLabels: { App: 'web' } }, 'identity'],
      [{ podLabels: {} }, 'identity'],
      [{ namespace: 'other', podLabels: { app: 'web' } }, 'identity'],
    ] as const) {
      grants.exceptions.replace([createException(exception)]);
      assert.equal(summary(grants.grantsOf('uid-pod')), expected, JSON.stringify(exception));
    }
  });

  it('follow an edit of any object at once', () => {
    const { pods, grants } = createIndexes(labelled('label'));
    const steps: [() => void, string][] = [
      [() => grants.bindings.upsert(createBinding()), 'no-identity'],
      [() => grants.identities.upsert(createIdentity()), 'identity'],
      [() => grants.bindings.upsert(createBinding({ identityName: 'two' })), 'no-identity'],
      [() => grants.identities.upsert(createIdentity({ name: 'two' })), 'two'],
      [() => grants.bindings.upsert(createBinding({ selector: 'else' })), 'no-binding'],
      [() => pods.upsert(labelled('else')), 'identity'],
      [() => grants.bindings.upsert(createBinding({ selector: 'else', uid: 'new' })), 'identity'],
      [() => grants.bindings.remove(createBinding()), 'identity'],
      [() => grants.bindings.remove(createBinding({ uid: 'new' })), 'no-binding'],
      [() => pods.upsert(createPod()), 'no-label'],
      [() => pods.remove(createPod()), 'no such pod'],
    ];
    for (const [step, expected] of steps) {
      step();
      assert.equal(summary(grants.grantsOf('uid-pod')), expected);
    }
  });
});

describe('listeners of the grant index', () => {
  it('do no harm when one throws', () => {
    const errors: unknown[] = [];
    const pods = new PodIndex(new HandClock(), (error) => errors.push(error));
    const grants = new GrantIndex(pods, (error) => errors.push(error));
    const failures = [pods, grants].map((index, at) => {
      const failure = new Error(`listener ${at}`);
      index.onChange(() => {
        throw failure;
      });
      return failure;
    });
    let told = 0;
    grants.onChange(() => told++);
    pods.upsert(labelled('label'));
    assert.equal(told, 1);
    assert.deepEqual(errors, failures.toReversed());
    assert.equal(summary(grants.grantsOf('uid-pod')), 'no-binding');
  });
});

describe('the work of one event', () => {
  const namespaceCount = 50;
  const podCount = 250;
  const identityCount = 10_000;
  const bindingCount = 20_000;

  const where = (at: number) => `ns-${at % namespaceCount}`;
  const pods = Array.from({ length: podCount }, (_, at) =>
    labelled(`label-${at % 125}`, {
      namespace: where(at),
      name: `pod-${at}`,
      ips: [`10.1.${at >> 8}.${at & 255}`],
    }),
  );
  const identities = Array.from({ length: identityCount }, (_, at) =>
    createIdentity({ namespace: where(at), name: `identity-${at}` }),
  );
  const bindings = Array.from({ length: bindingCount }, (_, at) =>
    createBinding({
      namespace: where(at),
      name: `binding-${at}`,
      identityName: `identity-${at % identityCount}`,
      selector: `label-${at}`,
    }),
  );

  const { pods: podIndex, grants } = createIndexes();
  /** How many pods' grants these steps computed. */
  const recomputedBy = (step: () => void): number => {
    const before = grants.stats.recomputed;
    step();
    return grants.stats.recomputed - before;
  };

  it('is one pass over the pods for a replace of everything', () => {
    const steps: readonly (readonly [expected: number, step: () => void])[] = [
      [podCount, () => podIndex.replace(pods)],
      [0, () => grants.identities.replace(identities)],
      [125, () => grants.bindings.replace(bindings)],
      [0, () => grants.bindings.replace(structuredClone(bindings))],
      [0, () => grants.identities.replace(structuredClone(identities))],
      [0, () => podIndex.replace(structuredClone(pods))],
    ];
    for (const [expected, step] of steps) assert.equal(recomputedBy(step), expected);
    assert.deepEqual(grants.stats, {
      identities: identityCount,
      bindings: bindingCount,
      exceptions: 0,
      boundPods: 125,
      labelGroups: podCount,
      recomputed: podCount + 125,
    });
  });

  it('is only the pods that the event touches', () => {
    const carriers = pods.filter(
      (pod) => pod.namespace === 'ns-7' && pod.labels[bindingLabel] === 'label-7',
    ).length;
    assert.ok(carriers > 0 && carriers < podCount / 10);
    const binding = bindings[7]!;
    const identity = identities[7]!;
    const [first, other] = [pods[0]!, pods[1]!];
    const untouched = grants.grantsOf(other.uid);

    const ofFirst = createException({ namespace: first.namespace, podLabels: first.labels });
    const edits: [string, number, () => void][] = [
      ['binding', carriers, () => grants.bindings.upsert({ ...binding, createdAtWallMs: 5 })],
      ['identity', carriers, () => grants.identities.upsert({ ...identity, clientId: 'new' })],
      ['identity gone', carriers, () => grants.identities.remove(identity)],
      ['binding gone', carriers, () => grants.bindings.remove(binding)],
      ['binding of nobody', 0, () => grants.bindings.remove(bindings[19_999]!)],
      ['identity of nobody', 0, () => grants.identities.remove(identities[9_999]!)],
      ['pod', 1, () => podIndex.upsert({ ...first, terminating: true })],
      ['pod gone', 0, () => podIndex.remove(first)],
      ['pod come', 1, () => podIndex.upsert(first)],
      ['exception', 1, () => grants.exceptions.upsert(ofFirst)],
    ];
    for (const [name, expected, step] of edits) assert.equal(recomputedBy(step), expected, name);
    assert.equal(grants.grantsOf(other.uid), untouched);
  });

  it('compares each binding of the label some ten times at most, in whichever order they come', () => {
    const names = Array.from({ length: 10_000 }, (_, at) => `b${String(at).padStart(4, '0')}`);
    for (const order of ['oldest first', 'youngest first']) {
      const index = createIndexes(
        ...Array.from({ length: 20 }, (_, at) => labelled('label', { name: `pod-${at}` })),
      );
      let reads = 0;
      const all = names.map((name, at) =>
        Object.defineProperty(createBinding({ name }), 'createdAtWallMs', {
          enumerable: true,
          get: () => {
            reads++;
            return order === 'oldest first' ? at : names.length - at;
          },
        }),
      );
      const [first, last] = order === 'oldest first' ? ['b0000', 'b9999'] : ['b9999', 'b0000'];
      const removed = (name: string) => () => index.grants.bindings.remove(createBinding({ name }));
      const steps: readonly (readonly [what: string, most: number, step: () => void])[] = [
        ['a list', 10, () => index.grants.bindings.replace(all)],
        ['an identity', 0.1, () => index.grants.identities.upsert(createIdentity())],
        ['one that does not count', 0.1, removed(last)],
        ['one that counts', 10, removed(first)],
      ];
      for (const [what, most, step] of steps) {
        reads = 0;
        step();
        // A comparison reads two.
        const each = reads / 2 / names.length;
        assert.ok(each <= most, `${what}, ${order}: ${each} times`);
      }
    }
  });

  it('visits no exception without a label of the pod', () => {
    const matching = Array.from({ length: 10 }, (_, at) =>
      createPod({ name: `pod-${at}`, labels: { app: 'web', [`key-${at}`]: 'y' } }),
    );
    const index = createIndexes(...matching);
    let visits = 0;
    index.grants.exceptions.replace(
      Array.from({ length: 1_500 }, (_, at) =>
        Object.defineProperty(createException({ name: `e-${at}` }), 'podLabels', {
          enumerable: true,
          get: () => {
            visits++;
            return { [`key-${at}`]: 'x', [`other-${at}`]: 'x' };
          },
        }),
      ),
    );
    const visitsOf = (step: () => void): number => {
      visits = 0;
      step();
      return visits;
    };
    const excepted = createPod({ name: 'other', labels: { 'key-7': 'X' } });
    const exception = createException({ podLabels: { app: 'web' } });
    const steps: readonly (readonly [what: string, step: () => void])[] = [
      ['a pod', () => index.pods.upsert(excepted)],
      ['an exception', () => index.grants.exceptions.upsert(exception)],
      ['its end', () => index.grants.exceptions.remove(exception)],
    ];
    for (const [what, step] of steps) assert.equal(visitsOf(step), 0, what);
    assert.equal(summary(index.grants.grantsOf('uid-other')), 'exception');
  });

  it('is nothing for an identity that only an earlier version of a binding named', () => {
    const index = createIndexes(labelled('label')).grants;
    index.bindings.upsert(createBinding({ identityName: 'once' }));
    index.bindings.upsert(createBinding({ identityName: 'now' }));
    const before = index.stats.recomputed;
    index.identities.upsert(createIdentity({ name: 'once' }));
    assert.equal(index.stats.recomputed, before);
    index.identities.upsert(createIdentity({ name: 'now' }));
    assert.equal(index.stats.recomputed, before + 1);
  });

  it('leaves nothing behind for the namespace that a uid had before', () => {
    const index = createIndexes(labelled('label'));
    index.pods.upsert(labelled('label', { namespace: 'other' }));
    const before = index.grants.stats.recomputed;
    index.grants.bindings.upsert(createBinding());
    index.grants.exceptions.upsert(createException({ podLabels: {} }));
    assert.equal(index.grants.stats.recomputed, before);
  });

  it('leaves nothing behind for the service account that a pod had before', () => {
    const index = createIndexes(labelled('label', { serviceAccount: 'robot' }));
    index.grants.bindings.upsert(createBinding({ serviceAccount: 'other' }));
    index.pods.replace([labelled('label', { serviceAccount: 'default' })]);
    assert.equal(index.grants.stats.labelGroups, 1);
  });

  it('keeps the same grants object of a pod when only the status changed', () => {
    const pod = pods.find(({ uid }) => grants.grantsOf(uid)?.kind === 'bound')!;
    const before = grants.grantsOf(pod.uid);
    podIndex.upsert({ ...pod, terminating: true });
    assert.equal(grants.grantsOf(pod.uid), before);
  });
});

describe('the oldest of more objects than count', () => {
  it('are the first by creation and then by name', () => {
    const aged = fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g'),
      createdAtWallMs: fc.integer({ min: 1, max: 4 }),
    });
    const all = fc.uniqueArray(aged, { minLength: 4, selector: ({ name }) => name });
    fc.assert(
      fc.property(all, fc.integer({ min: 1, max: 3 }), (objects, count) => {
        const sorted = objects.toSorted(
          (a, b) => a.createdAtWallMs - b.createdAtWallMs || (a.name < b.name ? -1 : 1),
        );
        assert.deepEqual(oldest(objects, count), sorted.slice(0, count));
      }),
    );
  });
});

// ---- against a naive model ------------------------------------------------------------------

interface TestBed {
  readonly pods: Map<string, Pod>;
  readonly identities: Map<string, Identity>;
  readonly bindings: Map<string, Binding>;
  readonly exceptions: Map<string, Exception>;
}

type Kind = keyof TestBed;
type Item = Pod | Identity | Binding | Exception;
type Event =
  | { readonly kind: Kind; readonly do: 'upsert' | 'remove'; readonly item: Item }
  | { readonly kind: Kind; readonly do: 'replace'; readonly items: readonly Item[] };

const ref = fc
  .record({
    namespace: fc.constantFrom('n1', 'n1', 'n2'),
    name: fc.constantFrom('a', 'b', 'c'),
    life: fc.constantFrom(1, 1, 2),
  })
  .map(({ namespace, name, life }): ObjectRef => ({
    namespace,
    name,
    uid: `${namespace}/${name}-${life}`,
  }));
const value = fc.constantFrom('x', 'x', 'y', 'X', '');
const account = fc.constantFrom('', '', 'robot', 'other');
const when = fc.integer({ min: 1, max: 3 });
const labels = fc.dictionary(fc.constantFrom('app', 'App', 'toString', bindingLabel), value);

const items: { readonly [K in Kind]: fc.Arbitrary<Item> } = {
  pods: fc
    .tuple(
      ...[ref, labels, when, fc.boolean()],
      fc.constantFrom<Pod['phase']>('Running', 'Failed'),
      fc.constantFrom('default', 'robot'),
    )
    .map(([of, all, createdAtWallMs, hostNetwork, phase, serviceAccount]) =>
      createPod({ ...of, labels: all, createdAtWallMs, hostNetwork, phase, serviceAccount }),
    ),
  identities: fc
    .tuple(ref, fc.constantFrom('C1', 'c1', 'c2', ' '), fc.constantFrom('/R', 'r/', ''), when)
    .map(([of, clientId, resourceId, createdAtWallMs]) =>
      createIdentity({ ...of, clientId, resourceId, createdAtWallMs }),
    ),
  bindings: fc
    .tuple(ref, value, fc.constantFrom('a', 'b', 'c', 'd', ''), when, account)
    .map(([of, selector, identityName, createdAtWallMs, serviceAccount]) =>
      createBinding({ ...of, selector, identityName, createdAtWallMs, serviceAccount }),
    ),
  exceptions: fc.tuple(ref, labels).map(([of, podLabels]) => createException({ ...of, podLabels })),
};

const eventOf = (kind: Kind): fc.Arbitrary<Event> => {
  const one = (what: 'upsert' | 'remove') =>
    items[kind].map((item) => ({ kind, do: what, item }) as const);
  const list = fc.array(items[kind], { maxLength: 6 });
  return fc.oneof(
    { weight: 5, arbitrary: one('upsert') },
    { weight: 2, arbitrary: one('remove') },
    { weight: 1, arbitrary: list.map((all) => ({ kind, do: 'replace', items: all }) as const) },
  );
};

const event = fc.oneof(
  ...(['pods', 'identities', 'bindings'] as const).map((kind) => ({
    weight: 3,
    arbitrary: eventOf(kind),
  })),
  { weight: 1, arbitrary: eventOf('exceptions') },
);

function applyToTestBed(testBed: TestBed, step: Event): void {
  const objects: Map<string, Item> = testBed[step.kind];
  const keyOf = (item: Item) => `${item.namespace}/${item.name}`;
  if (step.do === 'upsert') objects.set(keyOf(step.item), step.item);
  if (step.do === 'remove' && objects.get(keyOf(step.item))?.uid === step.item.uid) {
    objects.delete(keyOf(step.item));
  }
  if (step.do === 'replace') {
    objects.clear();
    for (const item of step.items) objects.set(keyOf(item), item);
  }
}

function applyToIndexes(store: ObjectStore<never>, step: Event): void {
  const anyStore = store as ObjectStore<Item>;
  if (step.do === 'upsert') anyStore.upsert(step.item);
  if (step.do === 'remove') anyStore.remove(step.item);
  if (step.do === 'replace') anyStore.replace(step.items);
}

/** The rules, applied one by one to all objects. */
function grantsByRules(testBed: TestBed, pod: Pod, labelledSince: number): PodGrants {
  const name = (a: ObjectRef, b: ObjectRef) => (a.name < b.name ? -1 : 1);
  const own = <T extends ObjectRef>(all: Map<string, T>) =>
    [...all.values()].filter(({ namespace }) => namespace === pod.namespace).sort(name);

  const podLabels = new Map(Object.entries(pod.labels));
  const exception = own(testBed.exceptions).find((candidate) =>
    Object.entries(candidate.podLabels).some(
      ([key, text]) => podLabels.get(key)?.toUpperCase() === text.toUpperCase(),
    ),
  );
  if (exception !== undefined) return { kind: 'exception', exception };

  const label = podLabels.get(bindingLabel) ?? '';
  if (label === '') return { kind: 'no-label' };
  const matching = own(testBed.bindings).filter(({ selector }) => selector === label);
  const isForeign = ({ serviceAccount }: Binding) =>
    serviceAccount !== '' && serviceAccount !== pod.serviceAccount;
  const bindings = matching.filter((binding) => !isForeign(binding));
  const since = [pod.createdAtWallMs, labelledSince];
  if (bindings.length === 0) {
    const bindingsForOtherAccounts = matching.filter(isForeign);
    return { kind: 'no-binding', label, bindingsForOtherAccounts, sinceWallMs: Math.max(...since) };
  }

  const exists = ({ identityName }: Binding) =>
    testBed.identities.has(`${pod.namespace}/${identityName}`);
  const identities = own(testBed.identities)
    .filter((identity) => bindings.some(({ identityName }) => identityName === identity.name))
    .sort((a, b) => a.createdAtWallMs - b.createdAtWallMs || name(a, b));
  if (identities.length === 0) {
    const sinceWallMs = Math.max(...since, ...bindings.map((of) => of.createdAtWallMs));
    return { kind: 'no-identity', label, bindings, sinceWallMs };
  }
  const firstBy = (key: (identity: Identity) => string) =>
    new Map(
      identities
        .toReversed()
        .filter((identity) => key(identity) !== '')
        .map((identity) => [key(identity), identity]),
    );
  return {
    kind: 'bound',
    label,
    identities,
    byClientId: firstBy(({ clientId }) => clientId.trim().toLowerCase()),
    byResourceId: firstBy(({ resourceId }) => (resourceId === '' ? '' : '/r')),
    bindings: bindings.filter(exists),
    danglingBindings: bindings.filter((binding) => !exists(binding)),
  };
}

describe('the grant index against the rules', () => {
  it('gives each pod the grants of the rules after each event, and reports only the changes', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        const { clock, pods, grants } = createIndexes();
        const stores: Record<Kind, ObjectStore<never>> = {
          pods,
          identities: grants.identities,
          bindings: grants.bindings,
          exceptions: grants.exceptions,
        };
        const testBed: TestBed = {
          pods: new Map(),
          identities: new Map(),
          bindings: new Map(),
          exceptions: new Map(),
        };
        const look = () =>
          [...testBed.pods.values()].map((pod) => ({
            pod,
            grants: grantsByRules(testBed, pod, pods.labelledSinceWallMs(pod.uid)),
          }));
        let told = 0;
        grants.onChange(() => {
          told++;
        });
        let before = look();
        for (const step of events) {
          clock.advance(1);
          const { generation } = grants;
          told = 0;
          applyToTestBed(testBed, step);
          applyToIndexes(stores[step.kind], step);
          const after = look();
          for (const { pod, grants: expected } of after) {
            assert.deepEqual(grants.grantsOf(pod.uid), expected);
          }
          for (const { pod } of before) {
            if (!after.some((row) => row.pod.uid === pod.uid)) {
              assert.equal(grants.grantsOf(pod.uid), undefined);
            }
          }
          const changed = isDeepStrictEqual(byUid(before), byUid(after)) ? 0 : 1;
          assert.equal(told, changed);
          assert.equal(grants.generation - generation, changed);
          const { boundPods, labelGroups } = grants.stats;
          assert.equal(boundPods, after.filter((row) => row.grants.kind === 'bound').length);
          const groups = after.map(({ pod: { namespace, labels: all, serviceAccount } }) =>
            [namespace, all[bindingLabel], serviceAccount].join('/'),
          );
          assert.ok(labelGroups <= new Set(groups).size, 'a group without a pod is kept');
          before = after;
        }
        pods.replace([]);
        assert.equal(grants.stats.labelGroups, 0);
      }),
      { numRuns: 500 },
    );
  });
});

function byUid<T extends { readonly pod: Pod }>(rows: readonly T[]): readonly T[] {
  return rows.toSorted((a, b) => (a.pod.uid < b.pod.uid ? -1 : 1));
}
