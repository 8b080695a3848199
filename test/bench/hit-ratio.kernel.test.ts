/**
 * A cached token beside a bare `node:http` reply in the same rounds. The bounds are generous: they
 * are for a hot path that was lost, not for one that got a little slower, which `npm run bench`
 * shows. The best round of each is compared, since others may use the machine too.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { subjects, type Series } from '../../bench/core/results.ts';
import { openControl } from '../../bench/stand/controls.ts';
import { measureRounds, shapes, type Subject } from '../../bench/stand/rounds.ts';
import { bodyBytesOf, callerOf, openStand, type Stand } from '../../bench/stand/stand.ts';
import { freshExecutable } from '../../scripts/build.ts';

const size = { pods: 50, identities: 200, bindings: 400 };

const best = (series: Series | undefined): number =>
  Math.max(...(series?.rounds.map(({ perSec }) => perSec) ?? []));

describe('the cost of a cached token', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let stand: Stand;
  let control: Subject | undefined;

  before(async () => {
    const executable = await freshExecutable();
    stand = stack.use(await openStand({ executable, agentFlags: [], size }));
    control = await openControl(subjects.nodeHttp, await bodyBytesOf(stand), stack);
  });
  after(() => stack.disposeAsync());

  for (const [shape, atLeast] of [
    [shapes.sixteen, 0.3],
    [shapes.fresh, 0.2],
  ] as const) {
    it(`is at most that of ${1 / atLeast} bare replies: ${shape.name}`, async () => {
      const { host, port } = stand;
      const agent = {
        ...{ name: subjects.agent, host, port, pids: [stand.agent.pid] },
        callers: [callerOf(stand.pods[0])],
      };
      const [ours, bare] = await measureRounds({
        ...{ subjects: [agent, control], shapes: [shape], rounds: 4, roundMs: 400 },
        say: () => undefined,
      });
      const ratio = best(ours) / best(bare);
      assert.ok(ratio >= atLeast, `${best(ours)}/s beside ${best(bare)}/s: ${ratio.toFixed(2)}`);
    });
  }
});
