/** Why a command cannot continue: what failed, and the next step. The only error that users see. */
import type { exitCodes } from './io.ts';

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export class PluginError extends Error {
  readonly exitCode: ExitCode;
  /** A sentence: what to do next. */
  readonly nextStep: string;

  constructor(exitCode: ExitCode, problem: string, nextStep: string) {
    super(problem);
    this.name = 'PluginError';
    this.exitCode = exitCode;
    this.nextStep = nextStep;
  }
}
