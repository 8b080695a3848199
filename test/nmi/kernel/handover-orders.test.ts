/**
 * Random orders of starts, ends and crashes of the two processes of up to three pods of a node, with
 * real processes; test/simulation/handover has many more without them. After the last of them, all
 * that run become ready within ten seconds, and the next update works.
 * `NMI_HANDOVER_PROCESS_ORDERS` sets the number of orders, and `NMI_HANDOVER_SEED` repeats one.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import { buildChild, openNode } from './handover-node.ts';
import { openOrder } from './handover-order.ts';

const givenSeed = Number(process.env['NMI_HANDOVER_SEED']);
const givenOrders = Number(process.env['NMI_HANDOVER_PROCESS_ORDERS']);
const orders = givenOrders > 0 ? givenOrders : 8;
const seeds = givenSeed > 0 ? [givenSeed] : Array.from({ length: orders }, (_, index) => index + 1);
const atOnce = 8;

let folder = '';
let program = '';
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-orders-'));
  program = await buildChild(folder);
});
after(() => rmSync(folder, { recursive: true, force: true }));

interface Outcome {
  readonly seed: number;
  readonly recoveryMs: number;
  readonly failure: string | undefined;
}

async function runOrder(seed: number, time: OwnTime): Promise<Outcome> {
  const place = join(folder, String(seed));
  await using node = await openNode(program, place);
  const order = openOrder(node, seed, time);
  try {
    await order.run();
    const recoveryMs = await order.recover();
    await order.update();
    return { seed, recoveryMs, failure: undefined };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { seed, recoveryMs: 0, failure: `seed ${seed}: ${message}\n${order.history()}` };
  }
}

describe('the listening socket in random orders', { timeout: (300 + 60 * orders) * 1_000 }, () => {
  it('is held by somebody who answers, within ten seconds after the last disturbance', async (t) => {
    using time = new OwnTime();
    const waiting = seeds.values();
    const outcomes: Outcome[] = [];
    const lane = async (): Promise<void> => {
      for (const seed of waiting) outcomes.push(await runOrder(seed, time));
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
    const failures = outcomes.flatMap(({ failure }) => failure ?? []);
    const longestMs = Math.max(...outcomes.map(({ recoveryMs }) => recoveryMs));
    t.diagnostic(
      `${outcomes.length} orders, ${failures.length} failed, longest recovery ${Math.round(longestMs)} ms`,
    );
    assert.equal(failures.length, 0, failures.join('\n\n'));
  });
});
