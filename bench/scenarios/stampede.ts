import type { ImdsFaults } from '../../lab/fakes/imds/fake-imds.ts';
import type { Figure } from '../core/results.ts';
import { Histogram } from '../core/histogram.ts';
import type { Expectation } from '../load/plan.ts';
import { goalSize } from '../fixture/objects.ts';
import { runLoad } from '../fixture/run-load.ts';
import { callerOf, openFixture, tokenPath } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

const connections = 200;

interface Variant {
  readonly name: string;
  readonly faults: ImdsFaults;
  /** Expected statuses; undefined: a token. */
  readonly statuses?: readonly number[];
}

const variants: readonly Variant[] = [
  { name: 'upstream answers in 10 ms', faults: { delayMs: 10 } },
  { name: 'upstream answers in 1 s', faults: { delayMs: 1_000 } },
  {
    name: 'upstream fails after 10 ms',
    faults: { delayMs: 10, fail: { status: 400 } },
    statuses: [400, 502, 503],
  },
];

export const stampede: Scenario = {
  name: 'stampede',
  title: `${connections} connections ask for one token that is not in memory, all at once`,
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { host, port, around } = fixture;
    const figures: Figure[] = [];
    const notes: string[] = [];
    for (const { name, faults, statuses } of variants) {
      const last: number[] = [];
      const upstream: number[] = [];
      const failures: number[] = [];
      await around.imds.setFaults({ ...faults, paths: 'token' });
      for (let round = 0; round < rounds; round++) {
        const resource = encodeURIComponent(
          `https://${name.replaceAll(' ', '-')}-${round}.example`,
        );
        const caller = callerOf(fixture.pods[0], `${tokenPath}&resource=${resource}`);
        const expect: Expectation =
          statuses === undefined ? caller.expect : { kind: 'status', statuses };
        around.imds.clear();
        const report = await runLoad({
          host,
          port,
          connections,
          kind: 'burst',
          callers: [{ ...caller, expect }],
          warmUpMs: 0,
          measuredMs: 20_000,
          serverPids: [],
        });
        last.push(Histogram.from(report.latency).maxUs / 1000);
        upstream.push(around.imds.requests().length);
        failures.push(report.failures);
        if (report.firstFailure !== undefined) notes.push(`${name}: ${report.firstFailure}`);
        say(`${name} ${round + 1}/${rounds}`);
      }
      figures.push(
        { name: `${name}: until the last has its answer`, unit: 'ms', values: last },
        { name: `${name}: requests upstream`, unit: '', values: upstream },
        { name: `${name}: other answers than the right one`, unit: '', values: failures },
      );
    }
    return { figures, notes };
  },
};
