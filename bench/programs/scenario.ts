/**
 * One scenario in a separate process: `node bench/programs/scenario.ts NAME EXECUTABLE OPTIONS`
 * reports its progress on stderr and prints its result as JSON.
 */
import type { Options } from '../core/options.ts';
import type { ScenarioResult } from '../core/results.ts';
import { describeCommit, describeLoad } from '../machine/describe.ts';
import { scenarios } from '../scenarios/all.ts';

const [name = '', executable = '', optionsText = '{}'] = process.argv.slice(2);
const found = scenarios.find((each) => each.name === name);
if (found === undefined) throw new TypeError(`no scenario is called ${name}`);
const { title, run } = found;

const startedMs = performance.now();
const startedAt = new Date().toISOString();
const [commit, loadBefore] = [describeCommit(), describeLoad()];
const stack = new AsyncDisposableStack();
const say = (line: string): void => void process.stderr.write(`  ${name}: ${line}\n`);

// A stopped run leaves no agent, namespace or cgroup behind.
let closing: Promise<void> | undefined;
const close = (): Promise<void> => (closing ??= stack.disposeAsync());
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => void close().finally(() => process.exit(130)));
}

const result = await measure(JSON.parse(optionsText) as Options);
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));

async function measure(options: Options): Promise<ScenarioResult> {
  try {
    const findings = await run({ options, executable, stack, say });
    return {
      name,
      title,
      startedAt,
      commit,
      loadBefore,
      seconds: Math.round((performance.now() - startedMs) / 100) / 10,
      series: [],
      figures: [],
      curves: [],
      notes: [],
      ...findings,
    };
  } finally {
    await close();
  }
}
