/** For adding a verb to the command line. */
import type { Argv } from 'yargs';
import type { ExitCode } from '../base/plugin-error.ts';
import { outputFormats, type OutputFormat } from '../base/output.ts';
import { failLimits, type FailOn, type VerbContext } from './context.ts';

export interface CommonFlags {
  readonly namespace: string | undefined;
  readonly 'agent-namespace': string;
  readonly 'all-namespaces'?: boolean | undefined;
  readonly 'fail-on'?: FailOn | undefined;
  readonly output?: OutputFormat | undefined;
}

export type Parser = Argv<CommonFlags>;

/** Runs the work of a verb and stores its exit code. */
export type Start = (
  flags: CommonFlags,
  work: (context: VerbContext) => Promise<ExitCode>,
) => Promise<void>;

export type AddVerb = (parser: Parser, start: Start) => Parser;

/** The argument `<name>` of a command. */
// No mutation: the command itself demands it, and only help shows that here.
export const nameArgument = { type: 'string', demandOption: true } as const;

/** A flag with a text, empty by default. */
export function textFlag(describe: string) {
  return { type: 'string', default: '', describe } as const;
}

/** A flag that is off by default. */
export function switchFlag(describe: string) {
  return { type: 'boolean', default: false, describe } as const;
}

/** Of a verb that prints a report. */
export const reportFlags = {
  output: {
    alias: 'o',
    requiresArg: true,
    choices: outputFormats,
    default: 'text',
    describe: 'Form of the output.',
  },
} as const;

/** Of a verb whose exit code tells what it found. */
export const failFlags = {
  'fail-on': {
    requiresArg: true,
    choices: failLimits,
    default: 'error',
    describe: 'Exit with 1 on errors, on warnings too, or never.',
  },
} as const;

/** Of a verb that can read all namespaces. */
export const scopeFlags = {
  'all-namespaces': { ...switchFlag('All namespaces.'), alias: 'A' },
} as const;
