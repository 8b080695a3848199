/**
 * The hand-over of the listening socket in every order of starts, readiness, SIGTERM, SIGKILL and
 * back-off of up to three pods: the real code and the check of the redirect, on a simulated
 * machine with a clock of its own.
 * `NMI_HANDOVER_ORDERS` sets the number of orders, and `NMI_HANDOVER_SEED` repeats one.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { sizeOfThisRun } from '../../runner/kinds.ts';
import { loadHandover, type Code } from '../load.ts';
import { faults } from './faults.ts';
import { runOrder, type Outcome, type Weights } from './order.ts';

const givenSeed = Number(process.env['NMI_HANDOVER_SEED']);
const givenOrders = Number(process.env['NMI_HANDOVER_ORDERS']);
const usualOrders = sizeOfThisRun() === 'long' ? 10_000 : 300;
const orders = givenOrders > 0 ? givenOrders : usualOrders;
/** Orders that once failed. */
const kept: readonly { why: string; weights?: Weights; seeds: readonly number[] }[] = [
  {
    why: 'an agent gives up just when its holder is back',
    weights: { start: 1, crash: 4, crashLoop: 20, killContainers: 20 },
    seeds: [3_582],
  },
  {
    why: 'a path is taken between two looks at it that are far apart',
    seeds: [999, 1_509, 4_957],
  },
];
/** Each planted fault is found within so many orders. */
const faultOrders = 400;

const rejections: unknown[] = [];
const onRejection = (error: unknown): void => void rejections.push(error);
before(() => process.on('unhandledRejection', onRejection));
after(() => process.off('unhandledRejection', onRejection));

async function failureOf(code: Code, seed: number, weights?: Weights): Promise<Outcome> {
  const outcome = await runOrder(code, seed, weights);
  // Rejections that nobody handles would have ended a process. Node reports them in its next turn.
  await turn();
  const [rejection] = rejections.splice(0);
  if (rejection === undefined) return outcome;
  return { ...outcome, failure: `nobody handled: ${inspect(rejection)}` };
}

function storyOf({ seed, failure, story }: Outcome): string {
  const file = 'test/simulation/handover/orders.test.ts';
  return [
    `seed ${seed}: ${failure ?? ''}`,
    ...story,
    `to repeat it: NMI_HANDOVER_SEED=${seed} ./dev node --test ${file}`,
  ].join('\n');
}

describe('the hand-over in simulated orders', () => {
  it('is answered, or recovers within ten seconds after the last disturbance', async (t) => {
    const code = await loadHandover();
    const [first, last] = givenSeed > 0 ? [givenSeed, givenSeed] : [1, orders];
    const startedMs = performance.now();
    const failed: Outcome[] = [];
    const longest = { recoveryMs: 0, longestSilenceMs: 0, longestTwoWritersMs: 0 };
    let [events, virtualMs] = [0, 0];
    for (let seed = first; seed <= last; seed += 1) {
      const outcome = await failureOf(code, seed);
      if (outcome.failure !== undefined) failed.push(outcome);
      if (givenSeed > 0) t.diagnostic(`${outcome.story.join('\n')}\nhash ${outcome.hash}`);
      for (const key of ['recoveryMs', 'longestSilenceMs', 'longestTwoWritersMs'] as const) {
        longest[key] = Math.max(longest[key], outcome[key]);
      }
      events += outcome.events;
      virtualMs += outcome.virtualMs;
    }
    const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
    t.diagnostic(
      [
        `${last - first + 1} orders, ${failed.length} failed, in ${seconds(performance.now() - startedMs)}`,
        `${events} events in ${Math.round(virtualMs / 3_600_000)} simulated hours`,
        `longest recovery ${seconds(longest.recoveryMs)}`,
        `longest silence after a disturbance ${seconds(longest.longestSilenceMs)}`,
        `longest time with two holders that change the kernel ${seconds(longest.longestTwoWritersMs)}`,
      ].join('; '),
    );
    const more =
      failed.length > 3
        ? [
            `and seeds ${failed
              .slice(3)
              .map(({ seed }) => seed)
              .join()}`,
          ]
        : [];
    assert.equal(failed.length, 0, [...failed.slice(0, 3).map(storyOf), ...more].join('\n\n'));
  });

  for (const { why, weights, seeds } of kept) {
    it(`holds where ${why}`, async () => {
      const code = await loadHandover();
      for (const seed of seeds) {
        const outcome = await failureOf(code, seed, weights);
        assert.equal(outcome.failure, undefined, storyOf(outcome));
      }
    });
  }

  it('is the same for the same seed', async (t) => {
    const code = await loadHandover();
    const hashes = new Set<string>();
    for (const seed of [1, 2, 3, 4, 5]) {
      const [one, other] = [await runOrder(code, seed), await runOrder(code, seed)];
      assert.deepEqual(one, other);
      hashes.add(one.hash);
    }
    t.diagnostic(`hashes ${[...hashes].join()}`);
    assert.equal(hashes.size, 5);
  });

  for (const fault of faults) {
    it(`finds that ${fault.name.replaceAll('-', ' ')}`, async (t) => {
      const code = await loadHandover(fault);
      for (let seed = 1; seed <= faultOrders; seed += 1) {
        const { failure } = await failureOf(code, seed, fault.weights);
        if (failure === undefined) continue;
        t.diagnostic(`seed ${seed}: ${failure}`);
        return;
      }
      assert.fail(`${faultOrders} orders did not find it`);
    });
  }
});
