/** A scenario, and running a list of them in one test bed. */
import { untilAborted } from '../../src/nmi/base/deadline.ts';
import type { TestBed } from './test-bed.ts';

export interface Scenario {
  /** Kebab case; what `--scenario` takes. */
  readonly name: string;
  /** One sentence for a person: what must hold. */
  readonly title: string;
  /** `namespaces`: needs the real redirect, or a kernel between pod and node. */
  readonly needs: 'namespaces' | 'any';
  /** Part of the short tour. */
  readonly inTour: boolean;
  /** Flags of the agent beyond the test bed's own. */
  readonly agentFlags?: readonly string[];
  /** Of the objects that `TestBed` makes. Default: they are new. */
  readonly objectAgeMs?: number;
  /**
   * Acts and asserts; throws AssertionError when something does not hold. What the pods got and
   * what the fake IMDS saw are both to be judged.
   * @returns one line that says what was seen.
   */
  run(testBed: TestBed): Promise<string>;
}

export interface ScenarioResult {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

export interface LabResult {
  readonly ok: boolean;
  /** The mode that the agent ran in. */
  readonly redirect: string;
  /** Node tokens handed to pods that are not excepted, over all scenarios. */
  readonly leaks: number;
  readonly scenarios: readonly ScenarioResult[];
}

export interface RunOptions {
  readonly testBed: TestBed;
  readonly scenarios: readonly Scenario[];
  readonly stop: AbortSignal;
  readonly onStart: (scenario: Scenario) => void;
  readonly onEnd: (scenario: Scenario, result: ScenarioResult) => void;
}

/** Each scenario with the leaks that happened in it: one leak fails it, whatever it asserted. */
export async function runScenarios(options: RunOptions): Promise<LabResult> {
  const { testBed } = options;
  const results: ScenarioResult[] = [];
  for (const scenario of options.scenarios) {
    if (options.stop.aborted) break;
    options.onStart(scenario);
    const before = testBed.leaks;
    const outcome = await runOne(scenario, testBed, options.stop);
    const leaked = testBed.leaks - before;
    const result =
      leaked === 0
        ? outcome
        : {
            name: scenario.name,
            ok: false,
            detail: `${leaked} node tokens leaked to pods; ${outcome.detail}`,
          };
    results.push(result);
    options.onEnd(scenario, result);
  }
  const isComplete = results.length === options.scenarios.length;
  const ok = isComplete && results.every((result) => result.ok) && testBed.leaks === 0;
  return { ok, redirect: testBed.mode, leaks: testBed.leaks, scenarios: results };
}

/** A stop ends it at once; what it still tries meets a test bed that is being taken down. */
async function runOne(
  scenario: Scenario,
  testBed: TestBed,
  stop: AbortSignal,
): Promise<ScenarioResult> {
  const act = async (): Promise<string> => {
    await testBed.reset(scenario.agentFlags, scenario.objectAgeMs);
    return scenario.run(testBed);
  };
  try {
    return { name: scenario.name, ok: true, detail: await untilAborted(stop, act()) };
  } catch (error) {
    const text = error instanceof Error ? error.message : 'unknown failure';
    const detail = text.replaceAll(/\s+/g, ' ').trim();
    return { name: scenario.name, ok: false, detail };
  }
}
