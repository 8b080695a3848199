/**
 * The whole agent while everything happens at once: pods that send good and bad requests, objects
 * that change, and faults of everything that it depends on. `NMI_CHAOS_SECONDS` sets the duration,
 * which is ten minutes in a long run, and `NMI_CHAOS_SEED` repeats the choices that each actor made in
 * an earlier run.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { describe, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { tuning } from '../../src/nmi/config/tuning.ts';
import { isWithin, sizeOfThisRun } from '../runner/kinds.ts';
import { openChaos, type Chaos } from './chaos/chaos.ts';
import { addresses, exceptedAddress, unknownAddress } from './chaos/objects.ts';

const givenSeconds = Number(process.env['NMI_CHAOS_SECONDS']);
const shortSeconds = process.env['CI'] === 'true' ? 30 : 15;
const usualSeconds = isWithin('long', sizeOfThisRun()) ? 600 : shortSeconds;
const seconds = givenSeconds > 0 ? givenSeconds : usualSeconds;
const givenSeed = Number(process.env['NMI_CHAOS_SEED']);
const seed = givenSeed > 0 ? givenSeed : randomInt(1, 2 ** 31);

/** Limits of requests in flight: of one pod, and of all pods together at the metadata service. */
const [fetchesOfPod, heldOfPod, fetchesAtOnce] = [50, 32, 4];
const tooMany = 8;

describe('the agent process in chaos', { timeout: (seconds + 300) * 1_000 }, () => {
  it('gives no pod another’s token, ends only connections, and leaves nothing behind', async (t) => {
    await using chaos = await openChaos(seed);
    t.diagnostic(`seed ${seed}, ${seconds} s`);
    await chaos.run(seconds * 1_000);
    for (const line of chaos.report()) t.diagnostic(line);
    assert.equal(chaos.findings.length, 0, [`seed ${seed}`, ...chaos.explain()].join('\n'));

    await chaos.calm();
    // A request without its client runs to its end: ten seconds at most.
    await eventually(() => assertNothingLeft(chaos), 20_000);
    await eventually(() => assertServed(chaos), 30_000);
    await assertSharesGivenBack(chaos);
    await assertNoBugs(chaos);
    chaos.agent.signal('SIGTERM');
    assert.equal(await chaos.agent.exited, 0);
    assert.equal(chaos.agent.stderr() + chaos.agent.stdout(), '');
  });
});

/** No connections and no waiting requests are left. */
async function assertNothingLeft(chaos: Chaos): Promise<void> {
  const metrics = await chaos.metrics();
  const tooManyOfPod = 'nmi_connections_refused_total{limit="per_caller"}';
  assert.equal(metrics.get(tooManyOfPod), 0, 'the traffic opened more than a pod may');
  assert.equal(metrics.get('nmi_connections'), 0, 'open connections');
  assert.equal(metrics.get('nmi_waiting_requests'), 0, 'waiting requests');
}

/** Every pod gets what the objects specify, now that they no longer change. */
async function assertServed(chaos: Chaos): Promise<void> {
  for (const ip of addresses) {
    const { identity, status } = await chaos.ask(ip, 'https://vault.azure.net');
    assert.equal(identity, chaos.expectedAt(ip), `${ip}: status ${status}`);
  }
}

/** If a pod sends more requests at once than its limit, only the excess is refused. */
async function assertSharesGivenBack(chaos: Chaos): Promise<void> {
  chaos.exceptAll();
  await eventually(() => assertServed(chaos));
  await chaos.imds.setFaults({ delayMs: 200 });
  chaos.imds.clear();
  // Of two pods, because one pod alone may use three of the four.
  const both = [exceptedAddress, addresses[0]];
  const replies = await Promise.all(both.map((ip) => askAtOnce(chaos, ip, fetchesOfPod + tooMany)));
  for (const [index, ofPod] of replies.entries()) {
    const refused = ofPod.filter(({ status }) => status === 429);
    assertBetween(refused.length, 1, tooMany, `fetches for ${both[index] ?? ''} that were refused`);
    const served = ofPod.filter(({ status }) => status === 200);
    assert.equal(served.length + refused.length, ofPod.length);
  }
  assert.equal(chaos.imds.peakTokenConcurrency(), fetchesAtOnce);
  const unknown = await askAtOnce(chaos, unknownAddress, heldOfPod + tooMany);
  assert.ok(unknown.every(({ status }) => status === 503));
  const notHeld = unknown.filter(({ durationMs }) => durationMs < tuning.lateObjectWaitMs - 20);
  assertBetween(notHeld.length, 1, tooMany, 'requests that were not held');
  for (const { ownMs } of notHeld)
    assert.ok(ownMs < 1_500, `not held, but answered in ${ownMs} ms`);
}

/** Each request is for a different token. */
function askAtOnce(chaos: Chaos, ip: string, count: number) {
  const all = Array.from({ length: count }, (_, index) => chaos.ask(ip, `https://${ip}/${index}`));
  return Promise.all(all);
}

function assertBetween(value: number, low: number, high: number, what: string): void {
  assert.ok(value >= low && value <= high, `${what}: ${value}, not ${low} to ${high}`);
}

async function assertNoBugs(chaos: Chaos): Promise<void> {
  const metrics = await chaos.metrics();
  assert.ok(metrics.has('nmi_watch_errors_total{resource="pods",kind="exception"}'));
  const bugs = [...metrics].filter(
    ([series, value]) => /reason="internal_error"|kind="exception"/.test(series) && value > 0,
  );
  assert.deepEqual(bugs, []);
}
