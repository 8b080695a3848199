/** The command line of `npm run bench`, parsed. */
import { parseArgs } from 'node:util';

export interface Options {
  readonly isQuick: boolean;
  /** Names of scenarios; empty means all but the soak. */
  readonly only: readonly string[];
  readonly rounds: number;
  readonly roundMs: number;
  readonly soakMinutes: number;
  /** An executable other than the one built from the sources. */
  readonly agent: string | undefined;
  readonly against: Rival | undefined;
  /** Write results, plots and README; else only print. */
  readonly isPublished: boolean;
  /** Publish even if the machine has other load, and note it in the results. */
  readonly isBeside: boolean;
  /** Flags for the agent. */
  readonly agentFlags: readonly string[];
}

/** Another implementation that accepts the flags of the replaced system. */
export interface Rival {
  readonly name: string;
  /** For `sh`. */
  readonly command: string;
}

export const usage = `./dev bench [SCENARIO...] [--quick] [--publish] [--rounds N] [--round-ms N]
  [--beside] [--agent FILE] [--against 'NAME=COMMAND'] [--minutes N (of soak)] [-- FLAG OF THE AGENT...]
Without a scenario all are run but soak, and the results are published. A machine that is at work is not
published of, unless --beside is given, which the results then say. `;

/** @throws TypeError with the problem. */
export function parseOptions(args: readonly string[]): Options {
  const ownArgs = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  const { values, positionals } = parseArgs({
    args: [...ownArgs],
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      publish: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      'round-ms': { type: 'string' },
      minutes: { type: 'string', default: '60' },
      agent: { type: 'string' },
      against: { type: 'string' },
      beside: { type: 'boolean', default: false },
    },
  });
  const isQuick = values.quick;
  return {
    isQuick,
    only: positionals,
    rounds: whole('rounds', values.rounds ?? (isQuick ? '3' : '5')),
    roundMs: whole('round-ms', values['round-ms'] ?? (isQuick ? '300' : '700')),
    soakMinutes: whole('minutes', values.minutes),
    agent: values.agent,
    against: values.against === undefined ? undefined : parseRival(values.against),
    isPublished: values.publish || (positionals.length === 0 && !isQuick),
    isBeside: values.beside,
    agentFlags: args.slice(ownArgs.length + 1),
  };
}

function parseRival(text: string): Rival {
  const equals = text.indexOf('=');
  const [name, command] = [text.slice(0, equals).trim(), text.slice(equals + 1).trim()];
  if (equals <= 0 || command === '') throw new TypeError(`--against wants NAME=COMMAND: ${text}`);
  return { name, command };
}

function whole(name: string, text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) {
    throw new TypeError(`--${name} wants a whole number of 1 or more: ${text}`);
  }
  return number;
}
