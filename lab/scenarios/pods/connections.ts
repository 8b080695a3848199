/** Many connections of one pod at once, which a busy pod needs. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { beside } from '../../pods/load-verdict.ts';
import { metricsLimitMs } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const burst = 200;
const halfSent = 300;

const bursts: Scenario = {
  name: 'connection-bursts',
  title: `A pod opens ${burst} connections at once, or ${halfSent} with half a request each: it gets every token.`,
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('burst', 'burst');
    const pod = await testBed.addPod({ name: 'burst', binding: 'burst' });
    assertToken(await pod.ask(), 'burst');
    const asked = Array.from({ length: burst }, (_, at) => pod.ask({ connection: `burst-${at}` }));
    for (const reply of await Promise.all(asked)) assertToken(reply, 'burst');
    await eventually(async () => {
      const open = await testBed.agent.metric('nmi_connections');
      assert.ok(open >= burst, `only ${open} connections are open`);
    }, metricsLimitMs);
    const holder = await testBed.addPod({ name: 'half-sent', binding: 'burst' });
    const holding = beside(
      holder.client.attack({
        style: 'repeat',
        request: 'GET /metadata/identity/oauth2/token?api-ver',
        connections: halfSent,
        durationMs: 2_000,
      }),
    );
    await delay(1_000);
    for (let count = 0; count < 10; count += 1) assertToken(await holder.ask(), 'burst');
    await holding;
    return `${burst} of ${burst} answered at once; 10 of 10 beside ${halfSent} half-sent requests`;
  },
};

export const connectionScenarios: readonly Scenario[] = [bursts];
