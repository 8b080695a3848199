/** A scenario: one measurement, in a fresh process. */
import type { Options } from '../core/options.ts';
import type { ScenarioResult } from '../core/results.ts';

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** Part of `--quick`. */
  readonly isQuick: boolean;
  /** Runs only when named. */
  readonly isExtra?: boolean;
  readonly run: (context: Context) => Promise<Findings>;
}

export interface Context {
  readonly options: Options;
  readonly executable: string;
  /** Closed when the scenario has ended. */
  readonly stack: AsyncDisposableStack;
  readonly say: (line: string) => void;
}

export type Findings = Partial<
  Pick<ScenarioResult, 'control' | 'series' | 'figures' | 'curves' | 'notes'>
>;
