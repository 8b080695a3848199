/**
 * Updates in every order of starts, readiness, SIGTERM, SIGKILL and back-off of up to three pods: the product's code of
 * both containers, with the check of the redirect, on a simulated machine with a clock of its own.
 * `NMI_UPDATE_ORDERS` sets the number of orders, `NMI_UPDATE_SEED` the first seed; alone, it repeats one.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { sizeOfThisRun } from '../../runner/kinds.ts';
import { loadWhole, type WholeCode } from '../load.ts';
import { faults } from './faults.ts';
import { runOrder, type Outcome } from './order.ts';

const givenSeed = Number(process.env['NMI_UPDATE_SEED']);
const givenOrders = Number(process.env['NMI_UPDATE_ORDERS']);
const isOne = givenSeed > 0 && !(givenOrders > 0);
const usualOrders = sizeOfThisRun() === 'long' ? 10_000 : 300;
const orders = isOne ? 1 : givenOrders > 0 ? givenOrders : usualOrders;
const first = givenSeed > 0 ? givenSeed : 1;
/** Each planted fault is found within so many orders. */
const faultOrders = 400;

const rejections: unknown[] = [];
const onRejection = (error: unknown): void => void rejections.push(error);
before(() => process.on('unhandledRejection', onRejection));
after(() => process.off('unhandledRejection', onRejection));

async function outcomeOf(code: WholeCode, seed: number): Promise<Outcome> {
  const outcome = await runOrder(code, seed);
  // Rejections that nobody handles would have ended a process. Node reports them in its next turn.
  await turn();
  const [rejection] = rejections.splice(0);
  if (rejection === undefined) return outcome;
  return { ...outcome, failure: `nobody handled: ${inspect(rejection)}` };
}

function storyOf({ seed, failure, story }: Outcome): string {
  const file = 'test/simulation/updates/updates.test.ts';
  return [
    `seed ${seed}: ${failure ?? ''}`,
    ...story,
    `to repeat it: NMI_UPDATE_SEED=${seed} ./dev node --test ${file}`,
  ].join('\n');
}

describe('updates in simulated orders', () => {
  it('are answered, or recover within ten seconds after the last disturbance', async (t) => {
    const code = await loadWhole();
    const startedMs = performance.now();
    const failed: Outcome[] = [];
    let [events, virtualMs, longestMs] = [0, 0, 0];
    for (let seed = first; seed < first + orders; seed += 1) {
      const outcome = await outcomeOf(code, seed);
      if (outcome.failure !== undefined) failed.push(outcome);
      if (isOne) t.diagnostic(`${outcome.story.join('\n')}\nhash ${outcome.hash}`);
      longestMs = Math.max(longestMs, outcome.longestSilenceMs);
      events += outcome.events;
      virtualMs += outcome.virtualMs;
    }
    const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
    t.diagnostic(
      `${orders} orders, ${failed.length} failed, in ${seconds(performance.now() - startedMs)}; ` +
        `${events} events in ${Math.round(virtualMs / 3_600_000)} simulated hours; ` +
        `longest silence after a disturbance ${seconds(longestMs)}`,
    );
    const others = failed.slice(3).map(({ seed, failure }) => `seed ${seed}: ${failure ?? ''}`);
    assert.equal(failed.length, 0, [...failed.slice(0, 3).map(storyOf), ...others].join('\n\n'));
  });

  it('are the same for the same seed', async () => {
    const code = await loadWhole();
    const hashes = new Set<string>();
    for (const seed of [1, 2, 3, 4, 5]) {
      const [one, other] = [await runOrder(code, seed), await runOrder(code, seed)];
      assert.deepEqual(one, other);
      hashes.add(one.hash);
    }
    assert.equal(hashes.size, 5);
  });

  for (const fault of faults) {
    it(`find that ${fault.name.replaceAll('-', ' ')}`, async (t) => {
      const code = await loadWhole(fault);
      for (let seed = first; seed < first + faultOrders; seed += 1) {
        const { failure } = await outcomeOf(code, seed);
        if (failure === undefined) continue;
        t.diagnostic(`seed ${seed}: ${failure}`);
        return;
      }
      assert.fail(`${faultOrders} orders did not find it`);
    });
  }
});
