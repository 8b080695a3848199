import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { jsonPatch } from '../../../../lab/fakes/kube/patches.ts';
import {
  ConditionWriter,
  type WriteCounts,
} from '../../../../src/nmi/conditions/condition-writer.ts';
import type { SecretFinding } from '../../../../src/nmi/diagnosis/objects.ts';
import { observing } from '../../../../src/nmi/conditions/observed.ts';
import { ObservedObjects } from '../../../../src/nmi/conditions/observed-objects.ts';
import { UpstreamResolver } from '../../../../src/nmi/grants/resolve-upstream.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { parseBinding, parseIdentity } from '../../../../src/nmi/kube/watch/parse.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { createOwners } from '../../../support/owners.ts';
import { readyIn } from '../../../support/ready-condition.ts';
import { pass } from '../../../support/token-fixture.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const root = '/apis/aadpodidentity.k8s.io/v1';
const parsers = {
  azureidentities: observing(parseIdentity),
  azureidentitybindings: observing(parseBinding),
};
type Plural = keyof typeof parsers;

interface Stored {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly spec: unknown;
  readonly status?: unknown;
}

/** An API server with both kinds, its watches, and the writer. */
class Fixture {
  readonly clock = new HandClock();
  readonly log = keptLog();
  readonly objects = new ObservedObjects();
  readonly counts: WriteCounts = {
    written: 0,
    conflict: 0,
    deleted: 0,
    rejected: 0,
    forbidden: 0,
    failed: 0,
  };
  /** Names of objects in the order of their writes. */
  readonly writes: string[] = [];
  readonly checks: string[] = [];
  readonly stored = new Map<string, Stored>();
  readonly secrets = new Map<string, SecretFinding | 'unavailable'>();
  checkTakes = Promise.resolve();
  statusOf: readonly Plural[] = ['azureidentities', 'azureidentitybindings'];
  keepsConditions = true;
  /** Writes are not answered. */
  hangs = false;
  /** Writes are done and not answered in time. */
  losesAnswers = false;
  failure: KubeError | undefined;
  /** By key of a stored object. */
  readonly refusals = new Map<string, KubeError>();
  isSynced = true;
  wakeUps = 0;
  pauseMs = 100;
  /** The API server of another fixture, if its own receives no writes. */
  patched: Fixture = this;
  #version = 0;
  readonly writer: ConditionWriter;

  constructor() {
    const { clock, log, objects, counts } = this;
    const { owners } = createOwners('warn');
    const authority = () =>
      ({
        ok: true,
        authority: 'https://login.example',
        audience: 'api://x',
        accountAudience: 'api://x',
      }) as const;
    this.writer = new ConditionWriter({
      clock,
      log,
      objects,
      counts,
      random: () => 0,
      rules: { owners, upstreams: new UpstreamResolver(authority) },
      isSynced: () => {
        this.wakeUps += 1;
        return this.isSynced;
      },
      pauseMs: () => this.pauseMs,
      checkSecret: async ({ secret: { namespace, name } }) => {
        this.checks.push(`${namespace}/${name}`);
        await this.checkTakes;
        const finding = this.secrets.get(`${namespace}/${name}`);
        if (finding === 'unavailable') {
          const problem = 'the Kubernetes API did not give it';
          return { kind: 'unavailable', problem, retryAfterMs: undefined };
        }
        const problem = `Secret ${namespace}/${name} does not exist`;
        return finding ?? { kind: 'missing', problem };
      },
      client: {
        getJson: (path) => {
          assert.equal(path, root);
          if (this.failure?.code === 'NETWORK') return Promise.reject(this.failure);
          const resources = this.statusOf.map((plural) => ({ name: `${plural}/status` }));
          return Promise.resolve({ resources });
        },
        patchJson: async (path, patch, call) => {
          const [, namespace = '', plural, name = ''] =
            /^\/apis\/aadpodidentity\.k8s\.io\/v1\/namespaces\/([^/]+)\/([^/]+)\/([^/]+)\/status$/.exec(
              path,
            ) ?? [];
          assert.ok(plural === 'azureidentities' || plural === 'azureidentitybindings', path);
          this.writes.push(`${plural}/${namespace}/${name}`);
          if (this.hangs) {
            assert.ok(call?.signal !== undefined);
            await once(call.signal, 'abort');
            throw new KubeError('NETWORK', 'ended');
          }
          if (!this.statusOf.includes(plural)) throw new KubeError('NOT_FOUND', 'no such path');
          return this.patched.#patch(`${plural}/${namespace}/${name}`, patch);
        },
      },
    });
  }

  put(plural: Plural, namespace: string, name: string, spec: unknown, status?: unknown): void {
    const key = `${plural}/${namespace}/${name}`;
    const generation = Number(this.stored.get(key)?.metadata['generation'] ?? 0) + 1;
    this.#version += 1;
    const resourceVersion = String(this.#version);
    const metadata = { namespace, name, uid: key, generation, resourceVersion };
    this.stored.set(key, { metadata, spec, ...(status === undefined ? {} : { status }) });
    this.arrive(key);
  }

  /** Passes the events of the watch on. */
  arrive(key: string): void {
    const raw = this.stored.get(key);
    if (key.startsWith('azureidentities/')) {
      const found = parsers.azureidentities(raw);
      assert.ok(found.ok);
      this.objects.identities.upsert(found.value);
    } else {
      const found = parsers.azureidentitybindings(raw);
      assert.ok(found.ok);
      this.objects.bindings.upsert(found.value);
    }
  }

  /** A write by another process. */
  replaceStatus(key: string, status: unknown, uid = key): void {
    const { metadata, spec } = stored(this, key);
    const resourceVersion = String((this.#version += 1));
    this.stored.set(key, { metadata: { ...metadata, uid, resourceVersion }, spec, status });
    this.arrive(key);
  }

  identity(namespace: string, name: string, spec: unknown = { type: 0, clientID }): void {
    this.put('azureidentities', namespace, name, spec);
  }

  binding(namespace: string, name: string, azureIdentity = name): void {
    const spec = { azureIdentity, selector: name };
    this.put('azureidentitybindings', namespace, name, spec);
  }

  /** `Ready` of a stored object, as its status and reason. */
  ready(plural: Plural, namespace: string, name: string): string {
    return readyIn(this.stored.get(`${plural}/${namespace}/${name}`)?.status);
  }

  /** Every request takes a while, and its event arrives before its answer. */
  async #patch(key: string, patch: readonly unknown[]): Promise<unknown> {
    await Promise.resolve();
    const failure = this.failure ?? this.refusals.get(key);
    if (failure !== undefined) throw failure;
    const before = this.stored.get(key);
    if (before === undefined) throw new KubeError('NOT_FOUND', 'none', { status: 404 });
    if (!this.keepsConditions) return before;
    const after = jsonPatch(before, patch) as Stored;
    if (after.metadata['resourceVersion'] !== before.metadata['resourceVersion']) {
      throw new KubeError('SERVER', 'conflict', { status: 409 });
    }
    this.#version += 1;
    const metadata = { ...after.metadata, resourceVersion: String(this.#version) };
    this.stored.set(key, { ...after, metadata });
    this.arrive(key);
    if (this.losesAnswers) throw new KubeError('TIMEOUT', 'no answer');
    return after;
  }
}

function stored(fixture: Fixture, key: string): Stored {
  const object = fixture.stored.get(key);
  assert.ok(object !== undefined);
  return object;
}

describe('the writer of conditions', () => {
  it('writes both kinds within seconds, once, and again after a change', async () => {
    const fixture = new Fixture();
    fixture.identity('shop', 'cart');
    fixture.binding('shop', 'cart');
    fixture.binding('shop', 'till');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'cart'), 'True ok');
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'till'), 'False identity_missing');
    fixture.wakeUps = 0;
    await pass(fixture.clock, 3_600_000);
    assert.equal(fixture.writes.length, 3, 'nothing changes, nothing is written');
    assert.ok(fixture.wakeUps <= 3_700, `${fixture.wakeUps} in an hour`);
    fixture.identity('shop', 'till');
    await pass(fixture.clock, 3_000);
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'till'), 'True ok');
    assert.deepEqual(fixture.writes.slice(3).sort(), [
      'azureidentities/shop/till',
      'azureidentitybindings/shop/till',
    ]);
    assert.equal(fixture.counts.written, 5);
  });

  it('also writes those of a binding that the agents ignore', async () => {
    const fixture = new Fixture();
    fixture.put('azureidentitybindings', 'shop', 'cart', { azureIdentity: 1, selector: 'cart' });
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'cart'), 'False object_unusable');
  });

  it('does not rewrite the conditions that another process wrote', async () => {
    const first = new Fixture();
    first.identity('shop', 'cart');
    first.binding('shop', 'cart');
    await pass(first.clock, 5_000);
    const second = new Fixture();
    for (const [key, object] of first.stored) {
      second.stored.set(key, object);
      second.arrive(key);
    }
    await pass(second.clock, 60_000);
    assert.deepEqual(second.writes, []);
  });

  it('waits for all lists', async () => {
    const fixture = new Fixture();
    fixture.isSynced = false;
    fixture.binding('shop', 'cart');
    await pass(fixture.clock, 60_000);
    assert.deepEqual(fixture.writes, []);
    fixture.isSynced = true;
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.writes.length, 1);
  });

  it('writes what is not ready first, also what becomes so while others wait', async () => {
    const fixture = new Fixture();
    fixture.pauseMs = 1_000;
    for (let number = 0; number < 20; number++) fixture.identity('shop', `good${number}`);
    for (let number = 0; number < 5; number++) fixture.binding('shop', `bad${number}`);
    await pass(fixture.clock, 8_000);
    const names = fixture.writes.map((key) => key.split('/')[2] ?? '');
    assert.deepEqual(names.slice(0, 5).sort(), ['bad0', 'bad1', 'bad2', 'bad3', 'bad4']);
    assert.match(names[5] ?? '', /^good/);
    fixture.binding('office', 'late');
    await pass(fixture.clock, 3_000);
    assert.ok(
      fixture.writes
        .slice(names.length, names.length + 2)
        .join(' ')
        .includes('/late'),
    );
    await pass(fixture.clock, 30_000);
    assert.equal(fixture.counts.written, 26);
  });

  it('writes one ready object in ten while others are never ready', async () => {
    const fixture = new Fixture();
    for (let number = 0; number < 300; number++) fixture.binding('crowd', `b${number}`);
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.writes.indexOf('azureidentities/shop/cart'), 9);
  });

  it('keeps the place of a waiting object that changes', async () => {
    const fixture = new Fixture();
    fixture.pauseMs = 1_000;
    for (let number = 0; number < 60; number++) fixture.identity('shop', `i${number}`);
    await pass(fixture.clock, 5_000);
    const key = 'azureidentities/shop/i10';
    for (let second = 0; second < 10; second++) {
      assert.ok(!fixture.writes.includes(key));
      fixture.identity('shop', 'i10');
      await pass(fixture.clock, 1_000);
      if (fixture.writes.includes(key)) break;
    }
    assert.equal(fixture.writes.indexOf(key), 10);
    // It is not ready now, and then ready again.
    const other = 'azureidentities/shop/i50';
    fixture.identity('shop', 'i50', { type: 9 });
    await pass(fixture.clock, 3_000);
    assert.ok(fixture.writes.indexOf(other) < 20);
    assert.equal(fixture.ready('azureidentities', 'shop', 'i50'), 'False identity_unsupported');
    // It has lost its first place.
    fixture.identity('shop', 'i50');
    await pass(fixture.clock, 120_000);
    assert.equal(fixture.counts.written, 61);
    assert.equal(fixture.writes.lastIndexOf(other), 60);
  });

  it('keeps the pace of writes, while Secrets are checked faster', async () => {
    const fixture = new Fixture();
    fixture.pauseMs = 10_000;
    const type1 = { type: 1, clientID, tenantID };
    for (let number = 0; number < 20; number++) {
      const name = `i${number}`;
      fixture.identity('shop', name, { ...type1, clientPassword: { name } });
    }
    await pass(fixture.clock, 2_000);
    assert.ok(fixture.checks.length > 5 && fixture.checks.length <= 11, 'ten a second');
    await pass(fixture.clock, 3_000);
    assert.deepEqual([fixture.checks.length, fixture.writes.length], [20, 1]);
    fixture.wakeUps = 0;
    await pass(fixture.clock, 50_000);
    assert.equal(fixture.writes.length, 6);
    assert.ok(fixture.wakeUps <= 70, `${fixture.wakeUps} in 50 s`);
    fixture.pauseMs = 100;
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.counts.written, 20);
  });

  it('writes once what two processes write at the same time', async () => {
    const fixture = new Fixture();
    const other = new Fixture();
    fixture.identity('shop', 'cart');
    // Its watch has the same version, and its writes reach the same server.
    other.identity('shop', 'cart');
    other.patched = fixture;
    await pass(fixture.clock, 5_000);
    await pass(other.clock, 1_500);
    assert.deepEqual([fixture.counts.written, other.counts.written], [1, 0]);
    assert.ok(other.counts.conflict >= 1);
    other.stored.set('azureidentities/shop/cart', stored(fixture, 'azureidentities/shop/cart'));
    other.arrive('azureidentities/shop/cart');
    const { conflict } = other.counts;
    await pass(other.clock, 3_600_000);
    assert.deepEqual([other.counts.written, other.counts.conflict], [0, conflict]);
  });

  it('leaves what replaces its conditions for ten minutes, however long they were in place', async () => {
    const fixture = new Fixture();
    const till = 'azureidentitybindings/shop/till';
    fixture.binding('shop', 'till');
    await pass(fixture.clock, 5_000);
    const missing = stored(fixture, till).status;
    fixture.identity('shop', 'till');
    await pass(fixture.clock, 1_200_000);
    fixture.writes.length = 0;
    fixture.replaceStatus(till, missing);
    await pass(fixture.clock, 590_000);
    assert.deepEqual(fixture.writes, []);
    await pass(fixture.clock, 80_000);
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'till'), 'True ok');
    assert.equal(fixture.writes.length, 1, 'written after ten minutes');
    fixture.replaceStatus(till, missing);
    await pass(fixture.clock, 15_000);
    fixture.objects.identities.remove({
      namespace: 'shop',
      name: 'till',
      uid: 'azureidentities/shop/till',
    });
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.writes.length, 1, 'what is wanted now is there');
    fixture.arrive('azureidentities/shop/till');
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.writes.length, 2, 'written at once: something else was wanted meanwhile');
  });

  it('leaves what replaces its conditions only as long as it wants the same', async () => {
    const fixture = new Fixture();
    const till = 'azureidentitybindings/shop/till';
    fixture.binding('shop', 'till');
    await pass(fixture.clock, 5_000);
    const missing = stored(fixture, till).status;
    fixture.identity('shop', 'till');
    await pass(fixture.clock, 30_000);
    fixture.replaceStatus(till, missing);
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'till'), 'False identity_missing');
    fixture.identity('shop', 'till', { type: 0 });
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'till'), 'False identity_invalid');
  });

  it('leaves a single condition that replaces its own, too', async () => {
    const fixture = new Fixture();
    fixture.binding('shop', 'till');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.writes.length, 1);
    const lastTransitionTime = '2026-01-01T00:00:00Z';
    const conditions = [{ type: 'Ready', status: 'Unknown', lastTransitionTime }];
    fixture.replaceStatus('azureidentitybindings/shop/till', { conditions });
    await pass(fixture.clock, 590_000);
    assert.equal(fixture.writes.length, 1);
    await pass(fixture.clock, 80_000);
    assert.equal(fixture.writes.length, 2, 'written after ten minutes');
  });

  for (const answers of ['arrive', 'are lost'] as const) {
    it(`takes no turns with a process that sees the objects differently, where answers ${answers}`, async () => {
      const fixture = new Fixture();
      const other = new Fixture();
      other.patched = fixture;
      for (const each of [fixture, other]) each.losesAnswers = answers === 'are lost';
      const till = 'azureidentitybindings/shop/till';
      fixture.binding('shop', 'till');
      fixture.identity('shop', 'till');
      for (let second = 0; second < 3_600; second += 1) {
        await pass(fixture.clock, 1_000);
        other.stored.set(till, stored(fixture, till));
        other.arrive(till);
        await pass(other.clock, 1_000);
      }
      const writes = [...fixture.writes, ...other.writes].filter((key) => key === till);
      assert.ok(writes.length >= 4 && writes.length <= 8, `${writes.length} in an hour`);
    });
  }

  it('writes conditions again that were lost, and those of a new object of the same name', async () => {
    const fixture = new Fixture();
    const till = 'azureidentitybindings/shop/till';
    fixture.binding('shop', 'till');
    await pass(fixture.clock, 1_200_000);
    fixture.replaceStatus(till, undefined);
    await pass(fixture.clock, 3_000);
    assert.equal(fixture.writes.length, 2);
    fixture.replaceStatus(till, undefined, 'new');
    await pass(fixture.clock, 15_000);
    assert.equal(fixture.writes.length, 3);
  });

  it('sends at most ten writes a second, with namespaces in turn', async () => {
    const fixture = new Fixture();
    for (let number = 0; number < 500; number++) fixture.identity('crowd', `i${number}`);
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.ok(
      fixture.writes.length <= 50 && fixture.writes.length >= 30,
      `${fixture.writes.length}`,
    );
    const place = fixture.writes.indexOf('azureidentities/shop/cart');
    assert.ok(place >= 0 && place < 3, `the quiet namespace came as number ${place}`);
    await pass(fixture.clock, 60_000);
    assert.equal(fixture.counts.written, 501);
  });

  it('writes a constantly changing object once in ten seconds', async () => {
    const fixture = new Fixture();
    for (let second = 0; second < 60; second++) {
      fixture.binding('shop', 'till', second % 2 === 0 ? 'a' : 'b');
      await pass(fixture.clock, 1_000);
    }
    assert.ok(fixture.writes.length >= 5 && fixture.writes.length <= 7, `${fixture.writes.length}`);
    await pass(fixture.clock, 15_000);
    const status = JSON.stringify(fixture.stored.get('azureidentitybindings/shop/till')?.status);
    assert.match(status, /"observedGeneration":60/, 'the last state is written');
  });

  it('loses nothing after a conflict, a deletion or an outage', async () => {
    const fixture = new Fixture();
    fixture.identity('shop', 'cart');
    // The watch is behind.
    fixture.stored.set('azureidentities/shop/cart', {
      metadata: {
        ...fixture.stored.get('azureidentities/shop/cart')?.metadata,
        resourceVersion: '99',
      },
      spec: { type: 0, clientID },
    });
    await pass(fixture.clock, 5_000);
    assert.ok(fixture.counts.conflict >= 1 && fixture.counts.conflict <= 5);
    fixture.arrive('azureidentities/shop/cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');

    fixture.binding('shop', 'cart');
    fixture.stored.delete('azureidentitybindings/shop/cart');
    await pass(fixture.clock, 30_000);
    assert.equal(fixture.counts.deleted, 1, 'not tried again');

    fixture.failure = new KubeError('NETWORK', 'away');
    fixture.identity('shop', 'till');
    await pass(fixture.clock, 300_000);
    assert.ok(
      fixture.counts.failed >= 5 && fixture.counts.failed < 20,
      `${fixture.counts.failed} tries`,
    );
    fixture.failure = undefined;
    await pass(fixture.clock, 90_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'till'), 'True ok');
    const lines = fixture.log.lines.map(({ message }) => message);
    assert.deepEqual(lines, ['failed to write status conditions'], 'one line for the outage');
  });

  it('writes soon after the server refused all requests for a while', async () => {
    const fixture = new Fixture();
    fixture.failure = new KubeError('SERVER', 'too many requests', { status: 429 });
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.ok(fixture.counts.failed > 0);
    const lines = fixture.log.lines.map(({ message }) => message);
    assert.deepEqual(lines, ['failed to write status conditions']);
    fixture.failure = undefined;
    await pass(fixture.clock, 30_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
  });

  it('does not soon retry a rejected object unless it changes, and writes the others', async () => {
    const fixture = new Fixture();
    fixture.failure = new KubeError('SERVER', 'invalid', { status: 422 });
    fixture.identity('shop', 'cart');
    fixture.identity('shop', 'till');
    await pass(fixture.clock, 120_000);
    assert.deepEqual([fixture.counts.rejected, fixture.writes.length], [2, 2]);
    assert.equal(fixture.log.lines.length, 1);
    fixture.failure = undefined;
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
  });

  it('retries every ten minutes when a permission is missing', async () => {
    const fixture = new Fixture();
    fixture.failure = new KubeError('FORBIDDEN', 'no', { status: 403 });
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 3_600_000);
    assert.ok(fixture.writes.length >= 5 && fixture.writes.length <= 7, `${fixture.writes.length}`);
    fixture.failure = undefined;
    await pass(fixture.clock, 660_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
  });

  it('tries few objects a second of a kind without a permission, and all of the other kind', async () => {
    const fixture = new Fixture();
    for (let number = 0; number < 100; number++) {
      const key = `azureidentities/shop/i${number}`;
      fixture.refusals.set(key, new KubeError('FORBIDDEN', 'no', { status: 403 }));
      fixture.identity('shop', `i${number}`);
      fixture.binding('shop', `b${number}`, `i${number}`);
    }
    await pass(fixture.clock, 20_000);
    const { forbidden } = fixture.counts;
    assert.ok(forbidden >= 5 && forbidden <= 40, `${forbidden} tries`);
    await pass(fixture.clock, 280_000);
    assert.deepEqual([fixture.counts.forbidden, fixture.counts.written], [100, 100]);
    assert.ok(fixture.log.lines.length <= 5, 'once a minute');
    fixture.refusals.clear();
    await pass(fixture.clock, 660_000);
    assert.equal(fixture.counts.written, 200);
  });

  const refusedLine = 'status conditions refused by API server';
  for (const [what, error, line] of [
    ['a policy refuses', new KubeError('FORBIDDEN', 'no', { status: 403 }), refusedLine],
    ['a policy calls invalid', new KubeError('SERVER', 'no', { status: 422 }), refusedLine],
    ['a webhook fails for', new KubeError('SERVER', 'no', { status: 500 }), refusedLine],
    ['a webhook does not answer for', new KubeError('TIMEOUT', 'no'), refusedLine],
    [
      'a webhook answers with a conflict for',
      new KubeError('SERVER', 'no', { status: 409 }),
      undefined,
    ],
  ] as const) {
    it(`delays no object for another that ${what}`, async () => {
      const fixture = new Fixture();
      fixture.refusals.set('azureidentities/shop/bad', error);
      for (const name of ['bad', ...Array.from({ length: 19 }, (_, index) => `i${index}`)]) {
        fixture.identity('shop', name);
      }
      await pass(fixture.clock, 6_000);
      assert.equal(fixture.counts.written, 19);
      const logged = fixture.log.lines.map(({ message }) => message);
      assert.deepEqual(logged, line === undefined ? [] : [line]);
      for (let minute = 0; minute < 60; minute++) {
        fixture.identity('shop', `later${minute}`);
        await pass(fixture.clock, 5_000);
        assert.equal(fixture.ready('azureidentities', 'shop', `later${minute}`), 'True ok');
        await pass(fixture.clock, 55_000);
      }
      const tries = fixture.writes.length - fixture.counts.written;
      assert.ok(tries >= 2 && tries <= 130, `${tries} tries in an hour`);
      fixture.refusals.clear();
      await pass(fixture.clock, 3_600_000);
      assert.equal(fixture.ready('azureidentities', 'shop', 'bad'), 'True ok', 'tried again');
    });
  }

  it('writes a refused object soon after its change, and not more than once in ten seconds', async () => {
    const fixture = new Fixture();
    const key = 'azureidentities/shop/bad';
    fixture.refusals.set(key, new KubeError('FORBIDDEN', 'no', { status: 403 }));
    for (let second = 0; second < 60; second++) {
      fixture.identity('shop', 'bad');
      await pass(fixture.clock, 1_000);
    }
    assert.ok(fixture.writes.length >= 4 && fixture.writes.length <= 7, `${fixture.writes.length}`);
    fixture.refusals.clear();
    fixture.identity('shop', 'bad');
    await pass(fixture.clock, 13_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'bad'), 'True ok');
  });

  it('keeps the conditions of other programs', async () => {
    const fixture = new Fixture();
    const synced = { type: 'Synced', status: 'True', reason: 'x', message: '' };
    const spec = { type: 0, clientID };
    fixture.put('azureidentities', 'shop', 'cart', spec, { conditions: [synced], other: 1 });
    await pass(fixture.clock, 5_000);
    const statusOf = () => fixture.stored.get('azureidentities/shop/cart')?.status;
    const typesOf = () =>
      (statusOf() as { conditions: { type: string }[] }).conditions.map(({ type }) => type);
    assert.equal(readyIn(statusOf()), 'True ok');
    assert.deepEqual(typesOf(), ['Synced', 'Valid', 'CredentialReadable', 'Ready']);
    fixture.put('azureidentities', 'shop', 'cart', { type: 9 }, statusOf());
    await pass(fixture.clock, 15_000);
    assert.equal(readyIn(statusOf()), 'False identity_unsupported');
    assert.equal(typesOf()[0], 'Synced');
    assert.deepEqual({ ...(statusOf() as object), conditions: [] }, { conditions: [], other: 1 });
  });

  it('skips kinds without conditions, and finds new definitions within a minute', async () => {
    const fixture = new Fixture();
    fixture.statusOf = [];
    fixture.identity('shop', 'cart');
    for (let number = 0; number < 100; number++) fixture.binding('shop', `b${number}`);
    await pass(fixture.clock, 3_600_000);
    assert.ok(fixture.writes.length <= 124, `${fixture.writes.length}: one a minute and kind`);
    assert.equal(fixture.counts.deleted, 0, 'no subresource');
    fixture.statusOf = ['azureidentities'];
    fixture.keepsConditions = false;
    const before = fixture.writes.length;
    await pass(fixture.clock, 3_600_000);
    const tries = fixture.writes.length - before;
    assert.ok(tries >= 2 && tries <= 124, `${tries} writes that the server drops`);
    fixture.keepsConditions = true;
    await pass(fixture.clock, 122_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
    assert.equal(fixture.log.lines.length, 2, 'one line a kind');
  });

  it('checks that Secrets exist, and follows changes', async () => {
    const fixture = new Fixture();
    const spec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };
    fixture.identity('shop', 'cart', spec);
    fixture.binding('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'False credential_missing');
    assert.equal(
      fixture.ready('azureidentitybindings', 'shop', 'cart'),
      'False credential_missing',
    );
    assert.deepEqual(fixture.checks, ['shop/sp'], 'one check for both');
    fixture.secrets.set('shop/sp', 'unavailable');
    await pass(fixture.clock, 150_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'False credential_missing');
    fixture.secrets.set('shop/sp', { kind: 'usable' });
    await pass(fixture.clock, 200_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
    assert.equal(fixture.ready('azureidentitybindings', 'shop', 'cart'), 'True ok');
  });

  it('writes other objects while a Secret takes seconds to check, and checks no other', async () => {
    const fixture = new Fixture();
    const opened = Promise.withResolvers<undefined>();
    fixture.checkTakes = opened.promise;
    for (const [name, namespace] of [
      ['slow', 'a'],
      ['other', 'b'],
    ] as const) {
      const spec = { type: 2, clientID, tenantID, clientPassword: { name } };
      fixture.identity(namespace, name, spec);
    }
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
    assert.deepEqual(fixture.checks, ['a/slow']);
    opened.resolve(undefined);
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'b', 'other'), 'False credential_missing');
  });

  it('judges one Secret for each kind of credential that it is used for', async () => {
    const fixture = new Fixture();
    for (const type of [1, 2]) {
      const spec = { type, clientID, tenantID, clientPassword: { name: 'sp' } };
      fixture.identity('shop', `of-type-${type}`, spec);
    }
    await pass(fixture.clock, 5_000);
    assert.deepEqual(fixture.checks, ['shop/sp', 'shop/sp']);
  });

  it('checks a Secret again if the write waited until its check was old, and writes then', async () => {
    const fixture = new Fixture();
    fixture.pauseMs = 70_000;
    // Once a minute all are checked whose check is old.
    await pass(fixture.clock, 30_000);
    for (const name of ['cart', 'till']) {
      const spec = { type: 1, clientID, tenantID, clientPassword: { name } };
      fixture.identity('shop', name, spec);
    }
    await pass(fixture.clock, 5_000);
    assert.deepEqual(fixture.writes, ['azureidentities/shop/cart']);
    await pass(fixture.clock, 70_000);
    assert.deepEqual(fixture.writes.slice(1), ['azureidentities/shop/till']);
  });

  it('checks a Secret again within seconds when the API server did not answer', async () => {
    const fixture = new Fixture();
    fixture.secrets.set('shop/sp', 'unavailable');
    const spec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };
    fixture.identity('shop', 'cart', spec);
    await pass(fixture.clock, 1_200);
    assert.deepEqual(fixture.checks, ['shop/sp']);
    fixture.secrets.set('shop/sp', { kind: 'usable' });
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.ready('azureidentities', 'shop', 'cart'), 'True ok');
  });

  it('writes other objects as fast while a Secret cannot be read', async () => {
    const fixture = new Fixture();
    fixture.secrets.set('a/sp', 'unavailable');
    fixture.identity('a', 'cart', { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } });
    await pass(fixture.clock, 120_000);
    for (const name of ['one', 'two', 'three']) fixture.identity('shop', name);
    await pass(fixture.clock, 5_000);
    for (const name of ['one', 'two', 'three']) {
      assert.equal(fixture.ready('azureidentities', 'shop', name), 'True ok');
    }
    assert.ok(fixture.checks.length < 15, `${fixture.checks.length} checks`);
  });

  it('ends a running write at its disposal, and does not count it', async () => {
    const fixture = new Fixture();
    fixture.hangs = true;
    fixture.identity('shop', 'cart');
    await pass(fixture.clock, 5_000);
    assert.equal(fixture.writes.length, 1);
    await fixture.writer[Symbol.asyncDispose]();
    assert.equal(fixture.counts.failed, 0);
    assert.deepEqual(fixture.log.lines, []);
  });

  it('stops at its disposal', async () => {
    const fixture = new Fixture();
    fixture.identity('shop', 'cart');
    await fixture.writer[Symbol.asyncDispose]();
    await pass(fixture.clock, 60_000);
    assert.deepEqual([fixture.writes, fixture.clock.armed.length], [[], 0]);
  });
});
