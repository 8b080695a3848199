/** A scenario, and running a list of them in one test bed. */
import { untilAborted } from '../../src/base/time/deadline.ts';
import type { TestBed } from './test-bed.ts';

export interface Scenario {
  /** Kebab case; the value of `--scenario`. */
  readonly name: string;
  /** The expected behavior in one sentence. */
  readonly title: string;
  /** `namespaces`: needs the real redirect, or a kernel between pod and node. */
  readonly needs: 'namespaces' | 'any';
  /** Part of the short tour. */
  readonly inTour: boolean;
  /** Flags of the agent beyond the test bed's own. */
  readonly agentFlags?: readonly string[];
  /** Age of the objects that `TestBed` creates. Default: new. */
  readonly objectAgeMs?: number;
  /**
   * Acts and asserts; throws AssertionError when an expectation fails. It must check both the pods'
   * replies and the fake IMDS's requests.
   * @returns one line with the observed result.
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
  /** Node tokens sent to pods without an exception, in all scenarios. */
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

/** Results of all scenarios with their leaks: one leak fails a scenario, whatever it asserted. */
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

/** Of the agent's log, with a failure. */
const lastLines = 5;

/** A stop ends the wait at once; the scenario's remaining steps fail in the closing test bed. */
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
    const lines = [text.replaceAll(/\s+/g, ' ').trim(), ...testBed.agent.lines.slice(-lastLines)];
    return { name: scenario.name, ok: false, detail: lines.join('; agent: ') };
  }
}
