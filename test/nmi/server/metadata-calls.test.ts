import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Party } from '../../../src/base/fair-queue.ts';
import {
  MetadataCalls,
  NoTurnError,
  type MetadataAnswer,
} from '../../../src/nmi/server/metadata-calls.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

const pod: Party = { namespace: 'default', pod: 'a' };
const other: Party = { namespace: 'default', pod: 'b' };

function open() {
  const clock = new HandClock();
  const calls = new MetadataCalls(clock, 10_000);
  const sent: { readonly what: string; readonly atMs: number }[] = [];
  const service = { latencyMs: 50, status: 200, bytes: 10 };
  const ask = (
    what: string,
    { party = pod, isKept = true, isShared = true } = {},
  ): Promise<MetadataAnswer> =>
    calls.make({
      sharedKey: isShared ? what : undefined,
      isKept,
      party,
      send: async (signal) => {
        sent.push({ what, atMs: clock.monotonicMs() });
        const { promise, resolve, reject } = Promise.withResolvers<undefined>();
        clock.schedule(service.latencyMs, () => resolve(undefined));
        signal.addEventListener('abort', () => reject(signal.reason));
        await promise;
        return { status: service.status, headers: [], body: Buffer.alloc(service.bytes) };
      },
    });
  return { clock, calls, sent, service, ask };
}

type Fixture = ReturnType<typeof open>;
type Service = Fixture['service'];

describe('calls of the metadata service', () => {
  it('are limited to five a second for the node, and pods take turns', async () => {
    const { clock, sent, ask } = open();
    const flood = Array.from({ length: 40 }, (_, index) => ask(`noise ${index}`));
    await pass(clock, 500);
    const quiet = ask('quiet', { party: other });
    await pass(clock, 600);
    await quiet;
    const place = sent.findIndex(({ what }) => what === 'quiet');
    assert.equal(place, 4, 'others have left it a part of the second');
    await pass(clock, 10_000);
    await Promise.all(flood);
    for (const { atMs } of sent) {
      const within = sent.filter((each) => each.atMs >= atMs && each.atMs < atMs + 1_000).length;
      assert.ok(within <= 5, `${within} within a second`);
    }
  });

  it('are shared by equal requests, and their answers are kept for three seconds', async () => {
    const { clock, sent, ask } = open();
    const all = Array.from({ length: 200 }, (_, index) =>
      ask('compute', { party: { namespace: 'default', pod: `${index}` } }),
    );
    await pass(clock, 50);
    await Promise.all(all);
    await pass(clock, 2_999);
    await ask('compute');
    assert.equal(sent.length, 1);
    await pass(clock, 1);
    const later = ask('compute');
    await pass(clock, 50);
    await later;
    assert.equal(sent.length, 2);
  });

  it('get the turn of each pod that waits for them, whoever began them', async () => {
    const { clock, sent, ask } = open();
    const flood = [
      ...Array.from({ length: 15 }, (_, index) => ask(`noise ${index}`)),
      ask('popular'),
    ];
    await pass(clock, 500);
    const joined = ask('popular', { party: other });
    await pass(clock, 0);
    assert.deepEqual(sent.at(-1), { what: 'popular', atMs: 500 });
    await pass(clock, 50);
    assert.equal((await joined).status, 200);
    await pass(clock, 10_000);
    await Promise.all(flood);
    assert.equal(sent.length, 16);
  });

  const unkept: readonly (readonly [string, Partial<Service>, Parameters<Fixture['ask']>[1]])[] = [
    ['that failed', { status: 404 }, {}],
    ['whose answer is large', { bytes: 64 * 1024 + 1 }, {}],
    ['that are not to be kept', {}, { isKept: false }],
    ['that are nobody else’s', {}, { isShared: false }],
  ];
  for (const [what, change, call] of unkept) {
    it(`${what} are repeated`, async () => {
      const { clock, sent, service, ask } = open();
      Object.assign(service, change);
      for (let turn = 1; turn <= 2; turn++) {
        const asked = ask('x', call);
        await pass(clock, 50);
        await asked;
        assert.equal(sent.length, turn);
      }
    });
  }

  it('with different requests are each made, also at the same time', async () => {
    const { clock, sent, ask } = open();
    const both = [ask('x', { isShared: false }), ask('x', { isShared: false })];
    await pass(clock, 50);
    await Promise.all(both);
    assert.equal(sent.length, 2);
  });

  it('that hang end in time, release their slot, and report whether they had one', async () => {
    const { clock, sent, service, ask } = open();
    service.latencyMs = 60_000;
    const hung = [pod, pod, pod, other, pod, pod].map((party, index) =>
      ask(`hung ${index}`, { party }),
    );
    const outcomes = Promise.allSettled(hung);
    await pass(clock, 10_000);
    const reasons = (await outcomes).map((each) =>
      each.status === 'rejected' && each.reason instanceof Error ? each.reason.name : 'none',
    );
    assert.deepEqual(reasons.slice(0, 4), Array(4).fill('TimeoutError'));
    assert.ok((await Promise.allSettled(hung)).slice(4).every(isNoTurn));
    assert.equal(sent.length, 4);
    service.latencyMs = 0;
    const next = ask('next');
    await pass(clock, 0);
    assert.equal((await next).status, 200);
  });

  it('arm nothing after disposal', async () => {
    const { clock, calls, ask } = open();
    const asked = ask('x');
    await pass(clock, 50);
    await asked;
    calls[Symbol.dispose]();
    assert.deepEqual(clock.armed, []);
  });
});

function isNoTurn(outcome: PromiseSettledResult<unknown>): boolean {
  return outcome.status === 'rejected' && outcome.reason instanceof NoTurnError;
}
