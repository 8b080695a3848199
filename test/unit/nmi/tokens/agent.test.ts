import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ask, tokenTarget } from '../../../support/ask.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import {
  bindApplication,
  bindPod,
  openEntraAgent,
  type EntraTestBed,
} from '../../../support/entra-agent.ts';
import { bindPodToA, openLoopbackAgent } from '../../../support/loopback-agent.ts';
import type { PodClient } from '../../../../lab/pods/pod-client.ts';

/** Less than a second, since the first requests are under way for longer than later ones. */
const shortMs = 600;

/** Requests tokens for so many resources at once. */
async function request(pod: PodClient, count: number): Promise<void> {
  const replies = await Promise.all(
    Array.from({ length: count }, (_, at) => ask(pod, `${tokenTarget}/${at}`)),
  );
  assert.deepEqual([...new Set(replies.map(({ status }) => status))], [200]);
}

/** From the first request to the one after `count`. */
function spanMs(requests: readonly { readonly atWallMs: number }[], count: number): number {
  const times = requests.map(({ atWallMs }) => atWallMs).toSorted((a, b) => a - b);
  return (times[count] ?? 0) - (times[0] ?? 0);
}

describe('the token path of the agent', () => {
  it('sends IMDS at most 20 requests a second', async () => {
    await using agent = await openLoopbackAgent({}, bindPodToA);
    await request(agent.client('127.0.0.11'), 21);
    assert.ok(spanMs(agent.imds.requests(), 20) >= shortMs);
  });

  it('sends Entra ID at most 40 requests a second', async () => {
    await using agent = await openEntraAgent({}, async (testBed) => {
      bindPod(testBed.kube);
      await bindApplication(testBed, 'secret', 'app');
    });
    await request(agent.client('127.0.0.11'), 41);
    assert.ok(spanMs(agent.entra.requests(), 40) >= shortMs);
  });

  it('drops the tokens of a deleted Secret within a minute', async () => {
    const minuteMs = 60_000;
    const schedule = (ms: number, run: () => void) =>
      systemClock.schedule(ms === minuteMs ? 100 : ms, run);
    const prepare = async (testBed: EntraTestBed) => {
      bindPod(testBed.kube);
      await bindApplication(testBed, 'secret', 'app');
    };
    await using agent = await openEntraAgent({}, prepare, { clock: { ...systemClock, schedule } });
    await request(agent.client('127.0.0.11'), 1);
    agent.kube.delete({ kind: 'Secret', name: 'app' });
    const dropped = 'secret deleted, cached tokens dropped';
    await eventually(() => assert.ok(agent.log.some((line) => line.includes(dropped))));
  });

  it('waits for the last try of a source, and answers with its failure', async () => {
    const tuning = { imdsTimeoutMs: 300, entraTimeoutMs: 100 };
    const armed: number[] = [];
    const schedule = (ms: number, run: () => void) => {
      armed.push(ms);
      return systemClock.schedule(ms, run);
    };
    const clock = { ...systemClock, schedule };
    await using agent = await openLoopbackAgent({}, bindPodToA, { tuning, clock });
    await agent.imds.setFaults({ hang: true });
    const { status, text } = await ask(agent.client('127.0.0.11'), tokenTarget);
    assert.equal(status, 503);
    assert.match(text, /the instance metadata service did not answer \(TIMEOUT\)/);
    assert.ok(
      armed.some((ms) => ms > 700 && ms <= 800),
      'the request waits 500 ms longer than the source',
    );
  });
});
