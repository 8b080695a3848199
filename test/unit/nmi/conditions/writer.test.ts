import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { jsonPatch } from '../../../../lab/fakes/kube/patches.ts';
import { ConditionWriter } from '../../../../src/nmi/conditions/condition-writer.ts';
import { ObservedObjects } from '../../../../src/nmi/conditions/observed-objects.ts';
import { observing } from '../../../../src/nmi/conditions/observed.ts';
import type { SecretFinding } from '../../../../src/nmi/diagnosis/objects.ts';
import type { Unavailable } from '../../../../src/nmi/kube/api/call-outcome.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parseBinding, parseIdentity } from '../../../../src/nmi/kube/watch/parse.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { readyIn } from '../../../support/ready-condition.ts';
import { pass as passOn } from '../../../support/token-fixture.ts';
import { world } from '../../../world.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const root = '/apis/aadpodidentity.k8s.io/v1';
const observeIdentity = observing(parseIdentity);
const observeBinding = observing(parseBinding);

/** Keys of objects: their paths below the group. */
const identityKey = (name: string, namespace = 'shop') => `azureidentities/${namespace}/${name}`;
const bindingKey = (name: string, namespace = 'shop') =>
  `azureidentitybindings/${namespace}/${name}`;
const withSecret = (name: string, type = 1) => ({
  type,
  clientID,
  tenantID,
  clientPassword: { name },
});

interface Stored {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly spec: unknown;
  readonly status?: unknown;
}

const forbidden = new KubeError('FORBIDDEN', 'no', { status: 403 });
const failed = (status: number) => new KubeError('SERVER', 'no', { status });

/** An API server with both kinds. */
class Server {
  readonly stored = new Map<string, Stored>();
  statusOf = ['azureidentities', 'azureidentitybindings'];
  keepsConditions = true;
  /** Writes are not answered, or done and not answered in time. */
  hangs = false;
  losesAnswers = false;
  failure: KubeError | undefined;
  /** By key. */
  readonly refusals = new Map<string, KubeError>();
  onChange = (_key: string): void => undefined;
  #version = 0;

  /** Stores an object with another version. */
  set(key: string, object: Stored): void {
    const metadata = { ...object.metadata, resourceVersion: String((this.#version += 1)) };
    this.stored.set(key, { ...object, metadata });
    this.onChange(key);
  }

  statusAt(key: string): unknown {
    return this.stored.get(key)?.status;
  }

  /** A write by another process. */
  replaceStatus(key: string, status: unknown, uid = key): void {
    const { metadata, spec } = this.stored.get(key) ?? assert.fail(key);
    this.set(key, { metadata: { ...metadata, uid }, spec, status });
  }

  getJson(path: string): Promise<unknown> {
    assert.equal(path, root);
    if (this.failure?.code === 'NETWORK') return Promise.reject(this.failure);
    return Promise.resolve({
      resources: this.statusOf.map((name) => ({ name: `${name}/status` })),
    });
  }

  /** Every request takes a while, and its event arrives before its answer. */
  async patch(key: string, patch: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    if (this.hangs) {
      assert.ok(signal !== undefined);
      await once(signal, 'abort');
      throw new KubeError('NETWORK', 'ended');
    }
    await Promise.resolve();
    const failure = this.failure ?? this.refusals.get(key);
    if (failure !== undefined) throw failure;
    const before = this.stored.get(key);
    if (before === undefined || !this.statusOf.includes(key.split('/')[0] ?? '')) {
      throw new KubeError('NOT_FOUND', 'none', { status: 404 });
    }
    if (!this.keepsConditions) return before;
    const after = jsonPatch(before, patch) as Stored;
    if (after.metadata['resourceVersion'] !== before.metadata['resourceVersion']) {
      throw failed(409);
    }
    this.set(key, after);
    if (this.losesAnswers) throw new KubeError('TIMEOUT', 'no answer');
    return after;
  }
}

/** @param other whose server this writer shares; its watch then brings what a test lets arrive. */
function openWriter(other?: { readonly server: Server }) {
  const clock = new HandClock();
  const log = keptLog();
  const objects = new ObservedObjects();
  const { server = new Server() } = other ?? {};
  const counts = { written: 0, conflict: 0, deleted: 0, rejected: 0, forbidden: 0, failed: 0 };
  /** Keys in the order of their writes, and names of checked Secrets. */
  const writes: string[] = [];
  const checks: string[] = [];
  const secrets = new Map<string, SecretFinding | Unavailable>();
  const state = { isSynced: true, wakeUps: 0, pauseMs: 100, checkTakes: Promise.resolve() };
  const { clusterState } = world({ owners: 'warn' });
  const writer = new ConditionWriter({
    clock,
    log,
    objects,
    counts,
    random: () => 0,
    rules: clusterState,
    isSynced: () => {
      state.wakeUps += 1;
      return state.isSynced;
    },
    pauseMs: () => state.pauseMs,
    checkSecret: async ({ secret: { namespace, name } }) => {
      checks.push(`${namespace}/${name}`);
      await state.checkTakes;
      const problem = `Secret ${namespace}/${name} does not exist`;
      return secrets.get(`${namespace}/${name}`) ?? { kind: 'missing', problem };
    },
    client: {
      getJson: (path) => server.getJson(path),
      patchJson: (path, patch, call) => {
        const [, namespace = '', plural = '', name = ''] =
          /\/v1\/namespaces\/([^/]+)\/([^/]+)\/([^/]+)\/status$/.exec(path) ?? [];
        const key = `${plural}/${namespace}/${name}`;
        assert.equal(path, `${root}/namespaces/${namespace}/${plural}/${name}/status`);
        writes.push(key);
        return server.patch(key, patch, call?.signal);
      },
    },
  });
  /** Passes the event of the watch on. */
  const arrive = (key: string): void => {
    const raw = server.stored.get(key);
    const [identity, binding] = [observeIdentity(raw), observeBinding(raw)];
    assert.ok(identity.ok && binding.ok);
    if (key.startsWith('azureidentities/')) objects.identities.upsert(identity.value);
    else objects.bindings.upsert(binding.value);
  };
  if (other === undefined) server.onChange = arrive;
  const put = (key: string, spec: unknown): void => {
    const [, namespace = '', name = ''] = key.split('/');
    const before = server.stored.get(key);
    const generation = Number(before?.metadata['generation'] ?? 0) + 1;
    server.set(key, { metadata: { namespace, name, uid: key, generation }, spec });
  };
  return {
    log,
    objects,
    server,
    counts,
    writes,
    checks,
    secrets,
    state,
    writer,
    arrive,
    put,
    identity: (name: string, spec: unknown = { type: 0, clientID }, namespace = 'shop') =>
      put(identityKey(name, namespace), spec),
    binding: (name: string, azureIdentity = name, namespace = 'shop') =>
      put(bindingKey(name, namespace), { azureIdentity, selector: name }),
    /** `Ready` of a stored object, as its status and reason. */
    ready: (key: string) => readyIn(server.statusAt(key)),
    pass: (ms: number) => passOn(clock, ms),
    armed: () => clock.armed,
    messages: () => log.lines.map(({ message }) => message),
  };
}

const unavailable: Unavailable = {
  kind: 'unavailable',
  problem: 'the Kubernetes API did not give it',
  retryAfterMs: undefined,
};
const [cart, till] = [identityKey('cart'), bindingKey('till')];

describe('the writer of conditions', () => {
  it('writes both kinds within seconds, once, and again after a change', async () => {
    const { identity, binding, put, pass, ready, writes, state, counts } = openWriter();
    identity('cart');
    binding('cart');
    binding('till');
    put(bindingKey('odd'), { azureIdentity: 1, selector: 'cart' });
    await pass(5_000);
    assert.equal(ready(cart), 'True ok');
    assert.equal(ready(bindingKey('cart')), 'True ok');
    assert.equal(ready(till), 'False identity_missing');
    assert.equal(ready(bindingKey('odd')), 'False object_unusable', 'the agents ignore it');
    state.wakeUps = 0;
    await pass(3_600_000);
    assert.equal(writes.length, 4, 'nothing changes, nothing is written');
    assert.ok(state.wakeUps <= 3_700, `${state.wakeUps} in an hour`);
    identity('till');
    await pass(3_000);
    assert.equal(ready(till), 'True ok');
    assert.deepEqual(writes.slice(4).sort(), [identityKey('till'), till]);
    assert.equal(counts.written, 6);
  });

  it('does not rewrite the conditions that another process wrote', async () => {
    const first = openWriter();
    first.identity('cart');
    first.binding('cart');
    await first.pass(5_000);
    const second = openWriter(first);
    for (const key of first.server.stored.keys()) second.arrive(key);
    await second.pass(60_000);
    assert.deepEqual(second.writes, []);
  });

  it('waits for all lists', async () => {
    const { binding, pass, writes, state } = openWriter();
    state.isSynced = false;
    binding('cart');
    await pass(60_000);
    assert.deepEqual(writes, []);
    state.isSynced = true;
    await pass(5_000);
    assert.equal(writes.length, 1);
  });

  it('writes what is not ready first, also what becomes so while others wait', async () => {
    const { identity, binding, pass, writes, state, counts } = openWriter();
    state.pauseMs = 1_000;
    for (let number = 0; number < 20; number++) identity(`good${number}`);
    for (let number = 0; number < 5; number++) binding(`bad${number}`);
    await pass(8_000);
    const names = writes.map((key) => key.split('/')[2] ?? '');
    assert.deepEqual(names.slice(0, 5).sort(), ['bad0', 'bad1', 'bad2', 'bad3', 'bad4']);
    assert.match(names[5] ?? '', /^good/);
    binding('late', 'late', 'office');
    await pass(3_000);
    const next = writes.slice(names.length, names.length + 2);
    assert.ok(next.join(' ').includes('/late'));
    await pass(30_000);
    assert.equal(counts.written, 26);
  });

  it('writes one ready object in ten while others are never ready', async () => {
    const { identity, binding, pass, writes } = openWriter();
    for (let number = 0; number < 300; number++) binding(`b${number}`, 'none', 'crowd');
    identity('cart');
    await pass(5_000);
    assert.equal(writes.indexOf(cart), 9);
  });

  it('keeps the place of a waiting object that changes', async () => {
    const { identity, pass, writes, ready, state, counts } = openWriter();
    state.pauseMs = 1_000;
    for (let number = 0; number < 60; number++) identity(`i${number}`);
    await pass(5_000);
    const key = identityKey('i10');
    for (let second = 0; second < 10 && !writes.includes(key); second++) {
      identity('i10');
      await pass(1_000);
    }
    assert.equal(writes.indexOf(key), 10);
    // It is not ready now, and then ready again.
    const other = identityKey('i50');
    identity('i50', { type: 9 });
    await pass(3_000);
    assert.ok(writes.indexOf(other) < 20);
    assert.equal(ready(other), 'False identity_unsupported');
    // It has lost its first place.
    identity('i50');
    await pass(120_000);
    assert.equal(counts.written, 61);
    assert.equal(writes.lastIndexOf(other), 60);
  });

  it('keeps the pace of writes, while Secrets are checked faster', async () => {
    const { identity, pass, checks, writes, state, counts } = openWriter();
    state.pauseMs = 10_000;
    for (let number = 0; number < 20; number++) identity(`i${number}`, withSecret(`i${number}`));
    await pass(2_000);
    assert.ok(checks.length > 5 && checks.length <= 11, 'ten a second');
    await pass(3_000);
    assert.deepEqual([checks.length, writes.length], [20, 1]);
    state.wakeUps = 0;
    await pass(50_000);
    assert.equal(writes.length, 6);
    assert.ok(state.wakeUps <= 70, `${state.wakeUps} in 50 s`);
    state.pauseMs = 100;
    await pass(15_000);
    assert.equal(counts.written, 20);
  });

  it('sends at most ten writes a second, with namespaces in turn', async () => {
    const { identity, pass, writes, counts } = openWriter();
    for (let number = 0; number < 500; number++) identity(`i${number}`, undefined, 'crowd');
    identity('cart');
    await pass(5_000);
    assert.ok(writes.length <= 50 && writes.length >= 30, `${writes.length}`);
    const place = writes.indexOf(cart);
    assert.ok(place >= 0 && place < 3, `the quiet namespace came as number ${place}`);
    await pass(60_000);
    assert.equal(counts.written, 501);
  });

  it('writes a constantly changing object once in ten seconds', async () => {
    const { binding, pass, writes, server } = openWriter();
    for (let second = 0; second < 60; second++) {
      binding('till', second % 2 === 0 ? 'a' : 'b');
      await pass(1_000);
    }
    assert.ok(writes.length >= 5 && writes.length <= 7, `${writes.length}`);
    await pass(15_000);
    const status = JSON.stringify(server.statusAt(till));
    assert.match(status, /"observedGeneration":60/, 'the last state is written');
  });

  it('ends a running write at its disposal, does not count it, and stops', async () => {
    const { identity, pass, writes, server, writer, counts, log, armed } = openWriter();
    server.hangs = true;
    identity('cart');
    await pass(5_000);
    assert.equal(writes.length, 1);
    await writer[Symbol.asyncDispose]();
    identity('other');
    await pass(60_000);
    assert.deepEqual([writes.length, counts.failed, log.lines, armed()], [1, 0, [], []]);
  });
});

describe('the writer of conditions beside other writers', () => {
  it('writes once what two processes write at the same time', async () => {
    const one = openWriter();
    const other = openWriter(one);
    one.identity('cart');
    // Its watch has the same version.
    other.arrive(cart);
    await one.pass(5_000);
    await other.pass(1_500);
    assert.deepEqual([one.counts.written, other.counts.written], [1, 0]);
    assert.ok(other.counts.conflict >= 1);
    other.arrive(cart);
    const { conflict } = other.counts;
    await other.pass(3_600_000);
    assert.deepEqual([other.counts.written, other.counts.conflict], [0, conflict]);
  });

  it('leaves what replaces its conditions for ten minutes, however long they were in place', async () => {
    const { identity, binding, pass, ready, writes, server, objects, arrive } = openWriter();
    binding('till');
    await pass(5_000);
    const missing = server.statusAt(till);
    identity('till');
    await pass(1_200_000);
    writes.length = 0;
    server.replaceStatus(till, missing);
    await pass(590_000);
    assert.deepEqual(writes, []);
    await pass(80_000);
    assert.equal(ready(till), 'True ok');
    assert.equal(writes.length, 1, 'written after ten minutes');
    server.replaceStatus(till, missing);
    await pass(15_000);
    const uid = identityKey('till');
    objects.identities.remove({ namespace: 'shop', name: 'till', uid });
    await pass(15_000);
    assert.equal(writes.length, 1, 'what is wanted now is there');
    arrive(uid);
    await pass(15_000);
    assert.equal(writes.length, 2, 'written at once: something else was wanted meanwhile');
    server.replaceStatus(till, missing);
    await pass(15_000);
    assert.equal(ready(till), 'False identity_missing');
    identity('till', { type: 0 });
    await pass(15_000);
    assert.equal(ready(till), 'False identity_invalid', 'it wants something else');
  });

  it('leaves a single condition that replaces its own, too', async () => {
    const { binding, pass, writes, server } = openWriter();
    binding('till');
    await pass(5_000);
    assert.equal(writes.length, 1);
    const lastTransitionTime = '2026-01-01T00:00:00Z';
    const conditions = [{ type: 'Ready', status: 'Unknown', lastTransitionTime }];
    server.replaceStatus(till, { conditions });
    await pass(590_000);
    assert.equal(writes.length, 1);
    await pass(80_000);
    assert.equal(writes.length, 2, 'written after ten minutes');
  });

  for (const losesAnswers of [false, true]) {
    const where = `where answers ${losesAnswers ? 'are lost' : 'arrive'}`;
    it(`takes no turns with a process that sees the objects differently, ${where}`, async () => {
      const one = openWriter();
      const other = openWriter(one);
      one.server.losesAnswers = losesAnswers;
      one.binding('till');
      one.identity('till');
      for (let second = 0; second < 3_600; second += 1) {
        await one.pass(1_000);
        other.arrive(till);
        await other.pass(1_000);
      }
      const writes = [...one.writes, ...other.writes].filter((key) => key === till);
      assert.ok(writes.length >= 4 && writes.length <= 8, `${writes.length} in an hour`);
    });
  }

  it('writes conditions again that were lost, and those of a new object of the same name', async () => {
    const { binding, pass, writes, server } = openWriter();
    binding('till');
    await pass(1_200_000);
    server.replaceStatus(till, undefined);
    await pass(3_000);
    assert.equal(writes.length, 2);
    server.replaceStatus(till, undefined, 'new');
    await pass(15_000);
    assert.equal(writes.length, 3);
  });
});

describe('the writer of conditions and a server that refuses', () => {
  it('loses nothing after a conflict, a deletion or an outage', async () => {
    const { identity, binding, pass, ready, server, counts, arrive, messages } = openWriter();
    identity('cart');
    // The watch is behind.
    server.onChange = () => undefined;
    server.set(cart, server.stored.get(cart) ?? assert.fail());
    server.onChange = arrive;
    await pass(5_000);
    assert.ok(counts.conflict >= 1 && counts.conflict <= 5);
    arrive(cart);
    await pass(5_000);
    assert.equal(ready(cart), 'True ok');

    binding('cart');
    server.stored.delete(bindingKey('cart'));
    await pass(30_000);
    assert.equal(counts.deleted, 1, 'not tried again');

    for (const [name, failure] of [
      ['till', new KubeError('NETWORK', 'away')],
      ['shelf', failed(429)],
    ] as const) {
      server.failure = failure;
      counts.failed = 0;
      identity(name);
      await pass(300_000);
      assert.ok(counts.failed >= 5 && counts.failed < 20, `${counts.failed} tries`);
      server.failure = undefined;
      await pass(90_000);
      assert.equal(ready(identityKey(name)), 'True ok');
    }
    const line = 'failed to write status conditions';
    assert.deepEqual(messages(), [line, line], 'one line for each outage');
  });

  it('tries few objects a second of a kind without a permission, and all of the other kind', async () => {
    const { identity, binding, pass, server, counts, log } = openWriter();
    for (let number = 0; number < 100; number++) {
      server.refusals.set(identityKey(`i${number}`), forbidden);
      identity(`i${number}`);
      binding(`b${number}`, `i${number}`);
    }
    await pass(20_000);
    assert.ok(counts.forbidden >= 5 && counts.forbidden <= 40, `${counts.forbidden} tries`);
    await pass(280_000);
    assert.deepEqual([counts.forbidden, counts.written], [100, 100]);
    assert.ok(log.lines.length <= 5, 'once a minute');
    server.refusals.clear();
    await pass(660_000);
    assert.equal(counts.written, 200);
  });

  for (const [what, error, outcome] of [
    ['a policy refuses', forbidden, 'forbidden'],
    ['a policy calls invalid', failed(422), 'rejected'],
    ['a webhook fails for', failed(500), 'failed'],
    ['a webhook does not answer for', new KubeError('TIMEOUT', 'no'), 'failed'],
    ['a webhook answers with a conflict for', failed(409), 'conflict'],
  ] as const) {
    it(`delays no object for another that ${what}`, async () => {
      const { identity, pass, ready, writes, server, counts, messages } = openWriter();
      server.refusals.set(identityKey('bad'), error);
      identity('bad');
      for (let number = 0; number < 19; number++) identity(`i${number}`);
      await pass(6_000);
      assert.equal(counts.written, 19);
      const line = 'status conditions refused by API server';
      assert.deepEqual(messages(), outcome === 'conflict' ? [] : [line]);
      for (let minute = 0; minute < 60; minute++) {
        identity(`later${minute}`);
        await pass(5_000);
        assert.equal(ready(identityKey(`later${minute}`)), 'True ok');
        await pass(55_000);
      }
      const tries = writes.length - counts.written;
      assert.equal(counts[outcome], tries);
      assert.ok(tries >= 2 && tries <= 130, `${tries} tries in an hour`);
      server.refusals.clear();
      await pass(3_600_000);
      assert.equal(ready(identityKey('bad')), 'True ok', 'tried again');
    });
  }

  it('writes a refused object soon after its change, and not more than once in ten seconds', async () => {
    const { identity, pass, ready, writes, server } = openWriter();
    server.refusals.set(cart, forbidden);
    for (let second = 0; second < 60; second++) {
      identity('cart');
      await pass(1_000);
    }
    assert.ok(writes.length >= 4 && writes.length <= 7, `${writes.length}`);
    server.refusals.clear();
    identity('cart');
    await pass(13_000);
    assert.equal(ready(cart), 'True ok');
  });

  it('skips kinds without conditions, and finds new definitions within a minute', async () => {
    const { identity, binding, pass, ready, writes, server, counts, log } = openWriter();
    server.statusOf = [];
    identity('cart');
    for (let number = 0; number < 100; number++) binding(`b${number}`);
    await pass(3_600_000);
    assert.ok(writes.length <= 124, `${writes.length}: one a minute and kind`);
    assert.equal(counts.deleted, 0, 'no subresource');
    server.statusOf = ['azureidentities'];
    server.keepsConditions = false;
    const before = writes.length;
    await pass(3_600_000);
    const tries = writes.length - before;
    assert.ok(tries >= 2 && tries <= 124, `${tries} writes that the server drops`);
    server.keepsConditions = true;
    await pass(122_000);
    assert.equal(ready(cart), 'True ok');
    assert.equal(log.lines.length, 2, 'one line a kind');
  });
});

describe('the writer of conditions and Secrets', () => {
  it('checks that they exist, once for each kind of credential, and follows changes', async () => {
    const { identity, binding, pass, ready, checks, secrets } = openWriter();
    identity('cart', withSecret('sp'));
    binding('cart');
    await pass(5_000);
    const states = () => [ready(cart), ready(bindingKey('cart'))];
    const missing = 'False credential_missing';
    assert.deepEqual(states(), [missing, missing]);
    assert.deepEqual(checks, ['shop/sp'], 'one check for both');
    identity('other', withSecret('sp', 2));
    await pass(5_000);
    assert.deepEqual(checks, ['shop/sp', 'shop/sp']);
    secrets.set('shop/sp', unavailable);
    await pass(150_000);
    assert.equal(ready(cart), missing);
    secrets.set('shop/sp', { kind: 'usable' });
    await pass(200_000);
    assert.deepEqual(states(), ['True ok', 'True ok']);
  });

  it('writes other objects while one takes seconds to check, and checks no other', async () => {
    const { identity, pass, ready, checks, state } = openWriter();
    const opened = Promise.withResolvers<void>();
    state.checkTakes = opened.promise;
    identity('slow', withSecret('slow', 2), 'a');
    identity('other', withSecret('other', 2), 'b');
    identity('cart');
    await pass(5_000);
    assert.equal(ready(cart), 'True ok');
    assert.deepEqual(checks, ['a/slow']);
    opened.resolve();
    await pass(5_000);
    assert.equal(ready(identityKey('other', 'b')), 'False credential_missing');
  });

  it('checks again if the write waited until the check was old, and writes then', async () => {
    const { identity, pass, writes, state } = openWriter();
    state.pauseMs = 70_000;
    // Once a minute all are checked whose check is old.
    await pass(30_000);
    for (const name of ['cart', 'till']) identity(name, withSecret(name));
    await pass(5_000);
    assert.deepEqual(writes, [cart]);
    await pass(70_000);
    assert.deepEqual(writes.slice(1), [identityKey('till')]);
  });

  it('checks again within seconds when the API server did not answer', async () => {
    const { identity, pass, ready, checks, secrets } = openWriter();
    secrets.set('shop/sp', unavailable);
    identity('cart', withSecret('sp'));
    await pass(1_200);
    assert.deepEqual(checks, ['shop/sp']);
    secrets.set('shop/sp', { kind: 'usable' });
    await pass(5_000);
    assert.equal(ready(cart), 'True ok');
  });

  it('writes other objects as fast while one cannot be read', async () => {
    const { identity, pass, ready, checks, secrets } = openWriter();
    secrets.set('a/sp', unavailable);
    identity('cart', withSecret('sp'), 'a');
    await pass(120_000);
    for (const name of ['one', 'two', 'three']) identity(name);
    await pass(5_000);
    for (const name of ['one', 'two', 'three']) assert.equal(ready(identityKey(name)), 'True ok');
    assert.ok(checks.length < 15, `${checks.length} checks`);
  });
});
