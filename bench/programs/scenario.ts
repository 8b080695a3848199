/**
 * One scenario in a process of its own: `node bench/programs/scenario.ts NAME EXECUTABLE OPTIONS`
 * tells its progress on stderr and prints its result as JSON.
 */
import type { Options } from '../core/options.ts';
import type { ScenarioResult } from '../core/results.ts';
import { scenarios } from '../scenarios/all.ts';

const [name = '', executable = '', optionsText = '{}'] = process.argv.slice(2);
const scenario = scenarios.find((each) => each.name === name);
if (scenario === undefined) throw new TypeError(`no scenario is called ${name}`);

const startedMs = performance.now();
const startedAt = new Date().toISOString();
const say = (line: string): void => void process.stderr.write(`  ${name}: ${line}\n`);
const result = await measure(JSON.parse(optionsText) as Options);
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));

async function measure(options: Options): Promise<ScenarioResult> {
  await using stack = new AsyncDisposableStack();
  const findings = await scenario!.run({ options, executable, stack, say });
  return {
    ...{ name, title: scenario!.title, startedAt },
    seconds: Math.round((performance.now() - startedMs) / 100) / 10,
    ...{ series: [], figures: [], curves: [], notes: [], ...findings },
  };
}
