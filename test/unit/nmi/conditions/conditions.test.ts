/** Their form, their evaluation beyond the situations of `test/situations`, and how fast they are written. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { jsonPatch } from '../../../../lab/fakes/kube/patches.ts';
import type { Binding, Identity } from '../../../../src/cache/index/objects.ts';
import {
  digestOf,
  parseConditions,
  patchOf,
  renderConditions,
  type Condition,
} from '../../../../src/nmi/conditions/condition.ts';
import {
  conditionsOfBinding,
  conditionsOfIdentity,
} from '../../../../src/nmi/conditions/evaluate.ts';
import {
  ObservedObjects,
  parseWorkKey,
  workKey,
} from '../../../../src/nmi/conditions/observed-objects.ts';
import { observing, type Observed } from '../../../../src/nmi/conditions/observed.ts';
import { openWritePace } from '../../../../src/nmi/conditions/write-pace.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parseBinding, parseIdentity } from '../../../../src/nmi/kube/watch/parse.ts';
import { createBinding, createIdentity } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { pass } from '../../../support/token-fixture.ts';
import { world } from '../../../world.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

const nowWallMs = Date.UTC(2026, 0, 1, 10, 0, 0, 999);
const valid: Condition = { type: 'Valid', status: 'True', reason: 'ok', message: '' };
const wrong: Condition = {
  type: 'Ready',
  status: 'False',
  reason: 'credential_missing',
  message: 'Secret a/b does not exist. Create it.',
};
const none = parseConditions(undefined);

describe('conditions', () => {
  const written = renderConditions([valid, wrong], 3, none, nowWallMs);
  const digest = digestOf([valid, wrong], 3);
  const timesOf = (rendered: readonly unknown[]) =>
    rendered.map((each) => (each as { lastTransitionTime: string }).lastTransitionTime);

  it('are in the format of Kubernetes, and equal to the written ones in any order', () => {
    const more = { observedGeneration: 3, lastTransitionTime: '2026-01-01T10:00:00Z' };
    assert.deepEqual(written, [
      { ...valid, ...more },
      { ...wrong, ...more },
    ]);
    for (const conditions of [written, written.toReversed()]) {
      assert.equal(parseConditions({ conditions }).digest, digest);
    }
  });

  it('differ in any field except the time', () => {
    for (const [name, other] of Object.entries({
      generation: digestOf([valid, wrong], 4),
      status: digestOf([{ ...valid, status: 'Unknown', reason: 'identity_invalid' }, wrong], 3),
      reason: digestOf([valid, { ...wrong, reason: 'identity_invalid' }], 3),
      message: digestOf([valid, { ...wrong, message: '' }], 3),
      less: digestOf([valid], 3),
      nothing: none.digest,
    })) {
      assert.notEqual(other, digest, name);
    }
  });

  it('keep the time of an unchanged status, and no other', () => {
    const before = parseConditions({ conditions: written });
    const [then, now] = ['2026-01-01T10:00:00Z', '2026-01-01T10:01:00Z'];
    for (const [changed, times] of [
      [
        [valid, { ...valid, type: 'Ready' as const }],
        [then, now],
      ],
      [[{ ...wrong, message: 'another text' }], [then]],
    ] as const) {
      assert.deepEqual(timesOf(renderConditions(changed, 4, before, nowWallMs + 60_000)), times);
    }
  });

  it('of other types, and invalid ones, are ignored', () => {
    const foreign = { type: 'Synced', status: 'True', reason: 'x', message: 'x'.repeat(10_000) };
    const conditions = [foreign, 7, null, 'text', { status: 'True' }];
    for (const status of [{ conditions }, null, 7, [], { conditions: {} }, { conditions: null }]) {
      const parsed = parseConditions(status);
      assert.deepEqual([parsed.digest, parsed.each], [none.digest, none.each]);
    }
    const odd = { type: 'Ready', status: 'Perhaps', lastTransitionTime: 'once'.repeat(1_000) };
    assert.deepEqual(parseConditions({ conditions: [odd] }).each, []);
    assert.notEqual(parseConditions({ conditions: [odd] }).digest, none.digest);
  });

  const patched = (status: unknown): unknown => {
    const object = { metadata: { resourceVersion: '7', name: 'a' }, spec: {}, status };
    const patch = patchOf('7', parseConditions(status), written);
    assert.deepEqual(patch[0], { op: 'replace', path: '/metadata/resourceVersion', value: '7' });
    const { status: left, ...rest } = jsonPatch(object, patch) as typeof object;
    assert.deepEqual(rest, { metadata: object.metadata, spec: object.spec });
    return left;
  };

  it('are put in by a patch, which leaves those of other programs', () => {
    for (const status of [undefined, null, {}, { conditions: null }, { conditions: [] }]) {
      assert.deepEqual(patched(status), { conditions: written });
    }
    assert.deepEqual(patched({ replicas: 1 }), { replicas: 1, conditions: written });
    const foreign = { type: 'Synced', status: 'True', reason: 'x', message: '' };
    const other = { type: 'Paused', status: 'False', reason: 'y', message: '' };
    const stale = { ...valid, type: 'IdentityFound' };
    for (const conditions of [
      [foreign, other],
      [valid, foreign, wrong, other],
      [foreign, stale, valid, valid, other],
      [...Array.from({ length: 20 }, () => foreign), other, wrong],
    ]) {
      const theirs = conditions.filter(({ type }) => type === 'Synced' || type === 'Paused');
      assert.deepEqual(patched({ conditions }), { conditions: [...theirs, ...written] });
    }
    let status: unknown = { conditions: Array.from({ length: 40 }, () => wrong) };
    assert.ok(patchOf('7', parseConditions(status), written).length < 25, 'bounded');
    for (let writes = 0; writes < 4; writes++) status = patched(status);
    assert.deepEqual(status, { conditions: written });
  });
});

const metadata = { namespace: 'shop', name: 'cart', uid: 'u', resourceVersion: '7', generation: 2 };

describe('an observed object', () => {
  const parse = observing(parseBinding);
  const spec = { azureIdentity: 'a', selector: 's' };

  it('has the decoded object, its version and its conditions', () => {
    const since = '2026-01-01T10:00:00Z';
    const more = { observedGeneration: 2, lastTransitionTime: since };
    const found = parse({ metadata, spec, status: { conditions: [{ ...wrong, ...more }] } });
    assert.ok(found.ok && found.value.parsed.ok);
    const { namespace, name, uid, version, generation, parsed, conditions } = found.value;
    assert.deepEqual([namespace, name, uid, version, generation], ['shop', 'cart', 'u', '7', 2]);
    assert.equal(parsed.value.selector, 's');
    assert.deepEqual(conditions.each, [{ type: 'Ready', status: 'False', since }]);
  });

  it('can also be one that the agents ignore, if it has a name', () => {
    const found = parse({ metadata: { ...metadata, generation: 'x' }, spec: { selector: 7 } });
    assert.ok(found.ok && !found.value.parsed.ok);
    assert.equal(found.value.parsed.reason, 'spec.selector is not a string');
    assert.equal(found.value.generation, 0);
    for (const nameless of [{ metadata: { name: 'b' }, spec }, 'text']) {
      assert.ok(!parse(nameless).ok);
    }
  });
});

describe('the evaluation of an identity and its binding', () => {
  const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
  const tenantID = '7e570000-1ab0-4000-8000-000000000001';
  const secret = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };
  const problem = 'the agent may not read Secret shop/sp: its service account needs a role';
  const good = { azureIdentity: 'cart', selector: 'cart' };
  /** What neither a Secret that is checked nor 200 other bindings make of the corpus's situations. */
  const rows = [
    ['a managed identity', { type: 0, clientID }, undefined, ['True ok', 'True ok'], ''],
    ['a federation', { type: 3, clientID, tenantID }, undefined, ['True ok', 'True ok'], ''],
    ['a usable Secret', secret, { kind: 'usable' }, ['True ok', 'True ok'], ''],
    [
      'a missing Secret',
      secret,
      { kind: 'missing', problem: 'Secret shop/sp does not exist' },
      ['False credential_missing', 'False credential_missing'],
      'Secret shop/sp does not exist. Create it.',
    ],
    [
      'an unusable Secret',
      secret,
      { kind: 'unusable', problem },
      ['False credential_invalid', 'False credential_invalid'],
      'The agent may not read Secret shop/sp: its service account needs a role. Correct the Secret. If the error ' +
        'names a missing right, an operator of the cluster gives it.',
    ],
  ] as const;
  const shown = (conditions: readonly Condition[]) =>
    conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`);

  function evaluate(spec: unknown, finding?: (typeof rows)[number][2], isSurplus = false) {
    const { clusterState } = world({ owners: 'warn' });
    const identity = observing(parseIdentity)({ metadata, spec });
    const binding = observing(parseBinding)({ metadata, spec: good });
    assert.ok(identity.ok && binding.ok);
    const ofIdentity = conditionsOfIdentity(identity.value, finding, clusterState);
    const facts = { identity: identity.value.parsed, meant: undefined, isSurplus };
    const ready = ofIdentity.find(({ type }) => type === 'Ready');
    return { ofIdentity, ready, ofBinding: conditionsOfBinding(binding.value, facts, ready) };
  }

  for (const [title, spec, finding, [readable, ready], message] of rows) {
    it(`is true, or names the problem: ${title}`, () => {
      const { ofIdentity, ofBinding, ready: own } = evaluate(spec, finding);
      const credential = `CredentialReadable=${readable}`;
      assert.deepEqual(shown(ofIdentity), ['Valid=True ok', credential, `Ready=${ready}`]);
      assert.equal(own?.message, message);
      const usable = ['IdentityFound=True ok', 'SelectorUsable=True ok', `Ready=${ready}`];
      assert.deepEqual(shown(ofBinding), usable);
      assert.equal(ofBinding.at(-1)?.message, message);
    });
  }

  it('names a selector that too many bindings have', () => {
    const { ofBinding } = evaluate({ type: 0, clientID }, undefined, true);
    const unusable = 'False selector_unusable';
    assert.deepEqual(shown(ofBinding), [
      'IdentityFound=True ok',
      `SelectorUsable=${unusable}`,
      `Ready=${unusable}`,
    ]);
    assert.match(ofBinding.at(-1)?.message ?? '', /^More than 200 bindings have its selector/);
  });
});

describe('observed objects', () => {
  let versions = 0;
  const observed = <T extends Binding | Identity>(value: T): Observed<T> => {
    const { namespace, name, uid } = value;
    const resourceVersion = String((versions += 1));
    const version = { resourceVersion, version: resourceVersion, generation: 1 };
    const parsed = { ok: true, value, texts: 0 } as const;
    return { namespace, name, uid, ...version, parsed, conditions: none };
  };
  const identity = (name: string) => observed(createIdentity({ name }));
  const binding = (name: string, identityName: string, selector = name, createdAtWallMs = 0) =>
    observed(createBinding({ name, identityName, selector, createdAtWallMs }));
  const taken = (objects: ObservedObjects) => [...objects.takeTouched()].sort();
  const removed = (name: string) => ({ namespace: 'default', name, uid: `uid-${name}` });

  it('have work keys that name an object', () => {
    const name = { namespace: 'shop', name: 'a.b' };
    for (const kind of ['identity', 'binding'] as const) {
      assert.deepEqual(parseWorkKey(workKey(kind, name)), { kind, ...name });
    }
  });

  it('are evaluated again when they change, with all of their namespace, or on request', () => {
    const objects = new ObservedObjects();
    const elsewhere = observed(createBinding({ namespace: 'other', name: 'b', selector: 'b' }));
    objects.bindings.replace([binding('b1', 'a'), binding('b2', 'other'), elsewhere]);
    assert.equal(taken(objects).length, 3);
    assert.deepEqual(taken(objects), []);
    const ofNamespace = ['binding/default/b1', 'binding/default/b2', 'identity/default/a'];
    objects.identities.upsert(identity('a'));
    assert.deepEqual(taken(objects), ofNamespace);
    const parsed = { ok: false, reason: 'x', ref: undefined } as const;
    objects.identities.upsert({ ...identity('a'), parsed });
    assert.deepEqual(taken(objects), ofNamespace, 'it became unusable');
    objects.touchAll();
    assert.deepEqual(taken(objects), [
      ...ofNamespace.slice(0, 2),
      'binding/other/b',
      ofNamespace[2],
    ]);
    objects.identities.remove(removed('a'));
    assert.deepEqual(taken(objects), ofNamespace.slice(0, 2));
  });

  it('are evaluated again alone when only their status changes, since a write needs the version', () => {
    const objects = new ObservedObjects();
    objects.bindings.replace([binding('b1', 'a'), binding('b2', 'a')]);
    taken(objects);
    const changed = binding('b1', 'a');
    objects.bindings.upsert(changed);
    assert.deepEqual(taken(objects), ['binding/default/b1']);
    assert.equal(objects.bindings.get('default', 'b1')?.version, changed.version);
    objects.bindings.upsert({ ...changed });
    assert.deepEqual(taken(objects), [], 'the same version');
  });

  it('know an identity with nearly the wanted name in the namespace', () => {
    const objects = new ObservedObjects();
    objects.identities.upsert(identity('orders'));
    assert.equal(objects.nearIdentity('default', 'Orders'), 'orders');
    assert.equal(objects.nearIdentity('other', 'Orders'), undefined);
    objects.identities.remove(removed('orders'));
    assert.equal(objects.nearIdentity('default', 'Orders'), undefined);
  });

  it('of one selector count up to 200, the oldest first, and follow a deletion among them', () => {
    const objects = new ObservedObjects();
    const all = Array.from({ length: 202 }, (_, age) => binding(`b${age}`, 'a', 'same', age));
    objects.bindings.replace(all);
    const surplus = () =>
      [...objects.bindings.all()]
        .filter(({ parsed }) => parsed.ok && objects.isSurplus(parsed.value))
        .map(({ name }) => name);
    assert.deepEqual(surplus(), ['b200', 'b201']);
    taken(objects);
    objects.bindings.remove(removed('b7'));
    assert.deepEqual(surplus(), ['b201']);
    assert.equal(taken(objects).length, 201, 'once, after any number of deletions');
    // Created in the same second as another, and before it by name.
    objects.bindings.upsert(binding('a', 'a', 'same', 200));
    assert.deepEqual(surplus(), ['b200', 'b201']);
  });
});

describe('the pace of writes', () => {
  /** @param answer the status of the DaemonSet, or why it cannot be read. */
  function openPace(answer: (signal?: AbortSignal) => unknown, maxWatchEventsPerSec = 5_000) {
    const clock = new HandClock();
    const log = keptLog();
    const paths: string[] = [];
    const config = { agentDaemonSet: 'nmi', agentNamespace: 'identity', maxWatchEventsPerSec };
    const client = {
      getJson: async (path: string, call?: { timeoutMs?: number; signal?: AbortSignal }) => {
        paths.push(path);
        assert.equal(call?.timeoutMs, 5_000);
        return { status: await answer(call.signal) };
      },
    };
    const pace = openWritePace({ clock, log, config, client });
    return { clock, log, paths, pace, [Symbol.asyncDispose]: () => pace[Symbol.asyncDispose]() };
  }
  const scheduled = (desiredNumberScheduled: unknown) => () => ({ desiredNumberScheduled });
  const refusing = (): never => {
    throw new KubeError('FORBIDDEN', 'no', { status: 403 });
  };

  it('is slower the more nodes there are, and the fewer events they may get', async () => {
    for (const [nodes, maxPerSec, pauseMs] of [
      [1, 5_000, 100],
      [500, 5_000, 100],
      [1_000, 5_000, 200],
      [15_000, 5_000, 3_000],
      [50_000, 5_000, 10_000],
      [90_000, 5_000, 10_000],
      [5_000, 50_000, 100],
      [5_000, 1_000, 5_000],
    ] as const) {
      await using testBed = openPace(scheduled(nodes), maxPerSec);
      await pass(testBed.clock, 0);
      assert.equal(testBed.pace.pauseMs, pauseMs, `${nodes} nodes, ${maxPerSec} events`);
    }
  });

  for (const [what, answer] of [
    ['forbidden', refusing],
    ['no number', () => undefined],
    ['not counted yet', scheduled(0)],
    ['text', scheduled('3')],
  ] as const) {
    it(`is that of a large cluster if the number is unknown (${what}), logged once`, async () => {
      await using testBed = openPace(answer);
      const { clock, pace, log } = testBed;
      assert.equal(pace.pauseMs, 1_000);
      await pass(clock, 3_600_000);
      assert.equal(pace.pauseMs, 1_000);
      assert.equal(log.lines.length, 1);
      assert.match(log.lines[0]?.message ?? '', /^number of nodes unknown/);
    });
  }

  it('follows the number, and is not faster than for the last one while it is unknown', async () => {
    let answer: () => unknown = scheduled(10);
    await using testBed = openPace(() => answer());
    const { clock, pace, log, paths } = testBed;
    for (const [next, ms, pauseMs, lines] of [
      [scheduled(10), 0, 100, 0],
      [scheduled(20_000), 60_000, 4_000, 0],
      [refusing, 120_000, 4_000, 1],
      [scheduled(3), 60_000, 100, 1],
      [refusing, 60_000, 1_000, 2],
    ] as const) {
      answer = next;
      await pass(clock, ms);
      assert.deepEqual([pace.pauseMs, log.lines.length], [pauseMs, lines]);
    }
    assert.deepEqual([...new Set(paths)], ['/apis/apps/v1/namespaces/identity/daemonsets/nmi']);
    assert.equal(paths.length, 6);
  });

  it('ends a read at its disposal, logs nothing then, and is read no more', async () => {
    let ended = 0;
    const { clock, pace, paths, log } = openPace(async (signal) => {
      assert.ok(signal !== undefined);
      await once(signal, 'abort');
      await nextTurn();
      ended += 1;
      throw new KubeError('NETWORK', 'ended');
    });
    await pass(clock, 600_000);
    assert.equal(paths.length, 1, 'one at a time');
    await pace[Symbol.asyncDispose]();
    assert.deepEqual([ended, log.lines], [1, []]);
    await pass(clock, 3_600_000);
    assert.deepEqual([paths.length, clock.armed.length], [1, 0]);
  });
});
