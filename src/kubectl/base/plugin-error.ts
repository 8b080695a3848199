/** Why a command cannot continue: what failed, and the next step. The only error that users see. */
import { exitCodes } from './io.ts';

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export class PluginError extends Error {
  readonly exitCode: ExitCode;
  readonly nextStep: string;

  constructor(exitCode: ExitCode, problem: string, nextStep: string) {
    super(problem);
    this.name = 'PluginError';
    this.exitCode = exitCode;
    this.nextStep = nextStep;
  }
}

/** The command line is wrong. */
export function usageError(problem: string, nextStep: string): PluginError {
  return new PluginError(exitCodes.usage, problem, nextStep);
}

export function failedError(problem: string, nextStep: string): PluginError {
  return new PluginError(exitCodes.findings, problem, nextStep);
}
