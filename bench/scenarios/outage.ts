import { setTimeout as delay } from 'node:timers/promises';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';
import { timelineCurve, timelineFigures } from './timeline.ts';

const pieceMs = 100;

export const outage: Scenario = {
  name: 'outage',
  title: 'Kubernetes API and metadata service are away for three seconds, 500 requests a second',
  isQuick: false,
  run: async ({ options, executable, stack }) => {
    const { agentFlags } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, agent, around } = fixture;
    const { kube, imds } = around;
    const loading = runLoad({
      host,
      port,
      connections: 16,
      kind: 'new',
      ratePerSec: 500,
      callers: [callerOf(fixture.pods[0])],
      serverPids: [agent.pid],
      warmUpMs: 500,
      measuredMs: 8_000,
      timelineMs: pieceMs,
    });
    await delay(2_500);
    const from = Date.now();
    kube.faults.failNext(100_000, 503);
    kube.cutConnections();
    await imds.setFaults({ closed: true });
    await delay(3_000);
    kube.faults.clear();
    await imds.setFaults({});
    const event = { name: 'Kubernetes API and IMDS are away', from, to: Date.now() };
    const report = await loading;
    return {
      figures: timelineFigures(report, pieceMs),
      curves: [timelineCurve(report, pieceMs, event)],
    };
  },
};
