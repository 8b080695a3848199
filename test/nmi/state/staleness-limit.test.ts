/** How long what a watch delivered counts while no events arrive. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Pod } from '../../../src/cache/index/objects.ts';
import { StalenessLimit } from '../../../src/nmi/state/staleness-limit.ts';
import type { WatchOptions } from '../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { parsePod } from '../../../src/nmi/kube/watch/parse.ts';
import type { WatchedResource } from '../../../src/nmi/kube/watch/watches.ts';
import { openReflector } from '../../../src/nmi/kube/watch/reflector.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { hourMs, pass } from '../../support/token-fixture.ts';
import { keptLog, MapStore } from '../kube/kube-test-bed.ts';

const listed = {
  type: 'BOOKMARK',
  object: {
    metadata: { resourceVersion: '7', annotations: { 'k8s.io/initial-events-end': 'true' } },
  },
};

/** A real watch of a cluster without any change: not even a bookmark arrives. */
function openQuiet(limitMs: number) {
  const clock = new HandClock();
  const state = { isBlackHole: false, opened: 0 };

  /** As in the client: a silent connection fails, and one that is not accepted fails sooner. */
  async function silence(ms: number, signal: AbortSignal | undefined): Promise<never> {
    return await new Promise((_resolve, reject) => {
      const disarm = clock.schedule(ms, () => {
        reject(new KubeError('TIMEOUT', 'silent'));
      });
      signal?.addEventListener('abort', () => {
        disarm();
        reject(new Error('aborted'));
      });
    });
  }
  async function* watch(path: string, options: WatchOptions): AsyncGenerator {
    if (state.isBlackHole) await silence(5_000, options.signal);
    state.opened += 1;
    options.onOpen?.();
    if (path.includes('sendInitialEvents')) yield listed;
    await silence(options.silenceMs, options.signal);
  }
  const reflector = openReflector<Pod>({
    listsBy: 'stream',
    name: 'pods',
    path: '/api/v1/pods',
    parse: parsePod,
    store: new MapStore<Pod>(),
    client: { watch, getJson: () => Promise.resolve(listed.object) },
    clock,
    random: () => 0.999,
    log: keptLog(),
  });
  const trust = new StalenessLimit({
    clock,
    limitMs,
    watches: {
      ages: () => [{ resource: 'pods', stalenessMs: reflector.stalenessMs }],
      checkNow: () => reflector.checkNow(),
    },
  });
  return {
    clock,
    state,
    trust,
    async [Symbol.asyncDispose]() {
      trust[Symbol.dispose]();
      await reflector[Symbol.asyncDispose]();
      assert.deepEqual(clock.armed, [], 'a timer is still armed');
    },
  };
}

/** Seconds of the hour during which the address was stale. */
async function countLost(fixture: ReturnType<typeof openQuiet>, ms: number): Promise<number> {
  let lost = 0;
  for (let passedMs = 0; passedMs < ms; passedMs += 1_000) {
    await pass(fixture.clock, 1_000);
    if (fixture.trust.problem() !== undefined) lost += 1;
  }
  return lost;
}

describe('a limit of staleness', () => {
  for (const limitMs of [10_000, 102_000, 900_000, 0]) {
    it(`stays current without limit in a quiet healthy cluster, with a limit of ${limitMs} ms`, async () => {
      await using fixture = openQuiet(limitMs);
      assert.equal(await countLost(fixture, hourMs), 0);
    });
  }

  it('causes no more watches in a quiet cluster with the usual limit than without', async () => {
    await using usual = openQuiet(900_000);
    await using none = openQuiet(0);
    await countLost(usual, hourMs);
    await countLost(none, hourMs);
    assert.equal(usual.state.opened, none.state.opened);
  });

  for (const limitMs of [10_000, 900_000]) {
    it(`ends after ${limitMs} ms in a black hole, and returns soon after it`, async () => {
      await using fixture = openQuiet(limitMs);
      await pass(fixture.clock, 2_000);
      fixture.state.isBlackHole = true;
      // Silence is detected by then, and everything earlier was confirmed earlier.
      const heardMs = 101_000;
      await pass(fixture.clock, limitMs + heardMs);
      assert.match(String(fixture.trust.problem()), /^not proven current: pods for /);
      assert.ok((await countLost(fixture, hourMs)) === hourMs / 1_000, 'trusted again meanwhile');
      fixture.state.isBlackHole = false;
      await pass(fixture.clock, 20_000);
      assert.equal(fixture.trust.problem(), undefined, 'not trusted again');
    });
  }

  it('is never lost without a limit', async () => {
    await using fixture = openQuiet(0);
    fixture.state.isBlackHole = true;
    assert.equal(await countLost(fixture, hourMs), 0);
  });

  it('ends to the millisecond, counted from the last confirmation of each watch', () => {
    const clock = new HandClock();
    const provenAtMs = { pods: 0, bindings: 0 };
    const checked: (string | undefined)[] = [];
    const ages = (name?: WatchedResource) =>
      (['pods', 'bindings'] as const)
        .filter((each) => name === undefined || name === each)
        .map((resource) => ({ resource, stalenessMs: clock.monotonicMs() - provenAtMs[resource] }));
    const watches = { ages, checkNow: (name?: WatchedResource) => checked.push(name) };
    using ofAll = new StalenessLimit({ clock, limitMs: 10_000, watches });
    using ofPods = new StalenessLimit({ clock, limitMs: 10_000, watches, resource: 'pods' });
    clock.advance(4_999);
    assert.deepEqual(checked, []);
    provenAtMs.pods = 4_999;
    clock.advance(1);
    assert.deepEqual(checked, ['bindings'], 'a watch is checked after half of the time');
    clock.advance(5_000);
    assert.equal(ofAll.problem(), undefined);
    clock.advance(1);
    assert.equal(ofAll.problem('they are '), 'they are not proven current: bindings for 10 s');
    assert.equal(ofPods.problem(), undefined);
    provenAtMs.bindings = clock.monotonicMs();
    assert.equal(ofAll.problem(), undefined);
  });
});
