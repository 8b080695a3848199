/** What the lab prints: text for people, or one JSON object for programs. */
import type { LabResult, Scenario, ScenarioResult } from './scenario.ts';
import type { TestBedKind } from './test-bed.ts';

export interface Report {
  begin(kind: TestBedKind, redirect: string, scenarios: number): void;
  start(this: void, scenario: Scenario): void;
  line(this: void, line: string): void;
  end(this: void, scenario: Scenario, result: ScenarioResult): void;
  skipped(scenario: Scenario): void;
  summary(result: LabResult): void;
}

export function createReport(output: 'text' | 'json', write: (text: string) => void): Report {
  return output === 'text' ? textReport(write) : jsonReport(write);
}

function jsonReport(write: (text: string) => void): Report {
  const nothing = (): void => undefined;
  return {
    begin: nothing,
    start: nothing,
    line: nothing,
    end: nothing,
    skipped: nothing,
    summary: (result) => {
      write(`${JSON.stringify(result)}\n`);
    },
  };
}

function textReport(write: (text: string) => void): Report {
  const startedAtMs = performance.now();
  return {
    begin: (kind, redirect, scenarios) => {
      const where =
        kind === 'namespaces'
          ? 'node and pods are network namespaces'
          : 'on loopback, WITHOUT namespaces and WITHOUT the redirect';
      write(`lab: ${where}; redirect: ${redirect}; scenarios: ${scenarios}\n`);
      write(
        'Azure (IMDS and Entra ID) and the Kubernetes API are fakes in this process; kernel and agent are real.\n',
      );
    },
    start: (scenario) => {
      write(`\n▶ ${scenario.name}: ${scenario.title}\n`);
    },
    line: (line) => {
      write(`    ${line}\n`);
    },
    end: (_scenario, result) => {
      write(`  ${result.ok ? '✔' : '✖'} ${result.detail}\n`);
    },
    skipped: (scenario) => {
      write(`\n- ${scenario.name} SKIPPED: it needs network namespaces (root)\n`);
    },
    summary: (result) => {
      const failed = result.scenarios.filter((scenario) => !scenario.ok);
      const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
      write(
        `\n${result.ok ? 'OK' : 'FAILED'}: ${result.scenarios.length - failed.length} of ` +
          `${result.scenarios.length} scenarios hold; node identity handed to pods that are not ` +
          `excepted: ${result.leaks} (must be 0); redirect ${result.redirect}; ${seconds} s\n`,
      );
      for (const { name, detail } of failed) write(`  ✖ ${name}: ${detail}\n`);
    },
  };
}
