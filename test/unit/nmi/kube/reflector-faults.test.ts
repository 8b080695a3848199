import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import { clientOf, eventually, keptLog, MapStore, quick, rawPod } from './kube-test-bed.ts';

interface Step {
  readonly name: string;
  readonly run: (fake: FakeKube) => void;
}

const podName = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
const kind = 'Pod';

const writes: fc.Arbitrary<Step> = fc.oneof(
  fc
    .tuple(podName, fc.constantFrom('node-a', 'node-a', 'node-b'), fc.nat(250))
    .map(([name, node, ip]) => ({
      name: `apply ${name} on ${node}`,
      run: (fake: FakeKube) => void fake.apply(rawPod(name, { node, ip: `10.0.0.${ip}` })),
    })),
  podName.map((name) => ({
    name: `delete ${name}`,
    run: (fake: FakeKube) => void fake.delete({ kind, name }),
  })),
  // Deleted and created again under the same name, with another uid.
  podName.map((name) => ({
    name: `recreate ${name}`,
    run: (fake: FakeKube) => {
      fake.delete({ kind, name });
      fake.apply(rawPod(name));
    },
  })),
  fc.tuple(podName, fc.constantFrom('Running', 'Succeeded')).map(([name, phase]) => ({
    name: `${name} is ${phase}`,
    run: (fake: FakeKube) => {
      if (fake.get({ kind, name }) !== undefined) fake.patch({ kind, name }, { status: { phase } });
    },
  })),
);

const faults: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(fc.constantFrom(403, 404), fc.integer({ min: 1, max: 2 })).map(([status, count]) => ({
    name: `an expired version, then ${count} times ${status}`,
    run: (fake: FakeKube) => {
      fake.faults.failNext(1, 410, { containing: 'watch=true' });
      fake.faults.failNext(count, status);
      fake.closeWatches();
    },
  })),
  fc.constant({ name: 'cut all', run: (fake: FakeKube) => fake.cutConnections() }),
  fc.constant({ name: 'close watches', run: (fake: FakeKube) => fake.closeWatches() }),
  fc.constant({ name: 'compact', run: (fake: FakeKube) => fake.compact() }),
  fc.constant({ name: 'go silent', run: (fake: FakeKube) => fake.goSilent() }),
  fc.constant({ name: 'garbage', run: (fake: FakeKube) => fake.injectIntoWatches('{"type"\n') }),
  fc.boolean().map((byStatus) => ({
    name: `410 by ${byStatus ? 'status' : 'event'}`,
    run: (fake: FakeKube) => {
      fake.faults.goneByStatus = byStatus;
    },
  })),
  fc.integer({ min: 1, max: 2000 }).map((bytes) => ({
    name: `cut the next watch after ${bytes} bytes`,
    run: (fake: FakeKube) => {
      fake.faults.cutNextWatchAfterBytes = bytes;
      fake.closeWatches();
    },
  })),
  fc
    .tuple(fc.constantFrom(401, 403, 404, 410, 429, 500, 503), fc.integer({ min: 1, max: 2 }))
    .map(([status, count]) => ({
      name: `${count} times ${status}`,
      run: (fake: FakeKube) => {
        fake.faults.failNext(count, status);
        fake.cutConnections();
      },
    })),
);

/** Gives the reflector some time, or none, before the next step. */
const rest: fc.Arbitrary<Step | number> = fc.constantFrom(0, 1, 3, 10);
const script = fc.array(fc.oneof(writes, faults, writes, rest), { minLength: 5, maxLength: 40 });

function plain(pod: Pod): unknown {
  return { ...pod, labels: { ...pod.labels } };
}

/** The current result of a list of this node's live pods. */
function truth(fake: FakeKube): unknown[] {
  return ['a', 'always', 'b', 'c', 'd', 'e', 'f'].flatMap((name) => {
    const raw = fake.get({ kind, name });
    if ((raw?.['spec'] as { nodeName?: string } | undefined)?.nodeName !== 'node-a') return [];
    if ((raw?.['status'] as { phase?: string } | undefined)?.phase === 'Succeeded') return [];
    const parsed = parsePod(raw);
    return parsed.ok ? [plain(parsed.value)] : [];
  });
}

function held(store: MapStore<Pod>): unknown[] {
  return store.names().map((name) => plain(store.items.get(name)!));
}

/** `eager` hardly waits between attempts. */
async function openTestBed(silenceMs: number, eager: 'eager' | 'quick') {
  const fake = await openFakeKube({ bookmarkEveryMs: 10 });
  // No step changes it.
  fake.apply(rawPod('always'));
  const client = await clientOf(fake);
  const store = new MapStore<Pod>();
  const reflector = openReflector<Pod>({
    listsBy: 'stream',
    absence: 'confirmed',
    name: 'pods',
    path: '/api/v1/pods',
    query: { fieldSelector: 'spec.nodeName=node-a,status.phase!=Succeeded' },
    parse: parsePod,
    store,
    client,
    clock: systemClock,
    random: Math.random,
    log: keptLog(),
    pageSize: 2,
    timing: {
      ...quick,
      silenceMs,
      ...(eager === 'eager' ? { backoff: { baseMs: 0.1, capMs: 1 } } : {}),
    },
  });
  return {
    fake,
    store,
    reflector,
    async [Symbol.asyncDispose]() {
      await reflector[Symbol.asyncDispose]();
      await client[Symbol.asyncDispose]();
      await fake[Symbol.asyncDispose]();
    },
  };
}

describe('a reflector under faults', () => {
  it("ends up with the server's state after any mix of writes, cuts, refusals and silence", async () => {
    await fc.assert(
      fc.asyncProperty(script, async (steps) => {
        await using testBed = await openTestBed(50, 'quick');
        const { fake, store, reflector } = testBed;
        for (const step of steps) {
          if (typeof step === 'number') await new Promise((done) => setTimeout(done, step));
          else step.run(fake);
        }
        await eventually(`the store to be ${JSON.stringify(truth(fake))}`, () => {
          const same = JSON.stringify(held(store)) === JSON.stringify(truth(fake));
          return same && reflector.synced;
        });
        assert.deepEqual(held(store), truth(fake));
        assert.equal(reflector.stats().objects, store.items.size);
        const emptied = store.replaced.filter(
          (list) => !list.some(({ name }) => name === 'always'),
        );
        assert.deepEqual(emptied, [], 'no failure empties the store');
        // The reflector still works: it sees the next event, too.
        fake.apply(rawPod('last'));
        await store.until('a last pod', () => store.items.has('default/last'));
      }),
      { numRuns: 100 },
    );
  });

  it('loses and repeats nothing wherever the stream is cut', async () => {
    await using testBed = await openTestBed(5000, 'eager');
    const { fake, store, reflector } = testBed;
    const watching = (): boolean => reflector.stats().phase === 'watching' && fake.watches() === 1;
    fake.apply(rawPod('a'));
    await eventually('it watches', watching);
    // The events of one round have about this length.
    const bytes = JSON.stringify({
      type: 'MODIFIED',
      object: fake.get({ kind, name: 'a' }),
    }).length;
    for (let cut = 1; cut < 3 * bytes; cut += 7) {
      fake.faults.cutNextWatchAfterBytes = cut;
      fake.closeWatches();
      fake.apply(rawPod('a', { ip: `10.1.${cut >> 8}.${cut & 255}` }));
      fake.apply(rawPod('b', { ip: `10.2.${cut >> 8}.${cut & 255}` }));
      fake.delete({ kind, name: cut % 2 === 0 ? 'a' : 'b' });
      const expected = JSON.stringify(truth(fake));
      await store.until(`cut at ${cut}`, () => JSON.stringify(held(store)) === expected);
    }
    assert.equal(store.replaced.length, 1, 'it resumed every time and never listed again');
    assert.ok(reflector.stats().errorsByKind.outage > 50);
  });
});
