/** Parses the command line and runs its verb. The options table validates the values. */
import { renderVersion } from '../nmi/base/build-info.ts';
import { nearest } from '../base/nearest.ts';
import { parseArgs } from './flags.ts';
import { renderHelp, renderOverview } from './help.ts';
import { exitCodes, type Io } from './io.ts';
import { verbs, type Verb } from './verbs.ts';

export async function runCli(args: readonly string[], io: Io): Promise<number> {
  const [first, ...others] = args;
  // A container without arguments may have all options in its environment.
  if (first === undefined && io.environment['NMI_NODE'] === undefined) {
    io.stdout(renderOverview());
    return exitCodes.usage;
  }
  if (first === 'help') return help(others, io);
  const named = first !== undefined && Object.hasOwn(verbs, first) ? first : undefined;
  return runVerb(named, named === undefined ? args : others, io);
}

async function runVerb(
  named: string | undefined,
  args: readonly string[],
  io: Io,
): Promise<number> {
  const name = named ?? 'run';
  const verb = verbOf(name);
  const switches = { help: { type: 'boolean' }, version: { type: 'boolean' } } as const;
  const parsed = parseArgs(args, { ...verb.flags, ...switches });
  if (typeof parsed === 'string') return usage(io, name, parsed);
  const { flags, rest } = parsed;
  if (flags['version'] === 'true') {
    io.stdout(renderVersion());
    return exitCodes.ok;
  }
  if (flags['help'] === 'true' || flags['h'] !== undefined) {
    return help(named === undefined ? [] : [named, ...rest.slice(0, 1)], io);
  }
  const problem = findStray(name, verb, rest) ?? findUnknownFlag(name, verb, flags);
  if (problem !== undefined) return usage(io, name, problem);
  return verb.start(parsed, io);
}

async function help([name, action]: readonly string[], io: Io): Promise<number> {
  if (name === undefined) {
    io.stdout(renderOverview());
    return exitCodes.ok;
  }
  if (!Object.hasOwn(verbs, name)) return usage(io, 'run', unknownWord(name, verbs));
  const verb = verbOf(name);
  const known = action !== undefined && Object.hasOwn(verb.actions ?? {}, action);
  io.stdout(await renderHelp(name, verb, known ? action : undefined, io.columns));
  return exitCodes.ok;
}

function verbOf(name: string): Verb {
  const verb = verbs[name];
  if (verb === undefined) throw new Error(`the verb table has no row "${name}"`);
  return verb;
}

function findStray(name: string, verb: Verb, rest: readonly string[]): string | undefined {
  const { actions } = verb;
  if (actions === undefined) {
    const [stray] = rest;
    if (stray === undefined) return undefined;
    if (name === 'run') {
      const hint = /^(?:true|false)$/i.test(stray) ? ' (write --flag=value)' : '';
      return `${unknownWord(stray, verbs)}${hint}`;
    }
    const { insteadOfWord } = verb;
    return `unknown word "${stray}"${insteadOfWord === undefined ? '' : `; ${insteadOfWord}`}`;
  }
  const [action, stray] = rest;
  const known = Object.keys(actions).join(', ');
  if (action === undefined) return `${name} needs an action: ${known}`;
  if (!Object.hasOwn(actions, action)) return `unknown action "${action}"; known are ${known}`;
  return stray === undefined ? undefined : `unknown word "${stray}"`;
}

function unknownWord(word: string, known: object): string {
  const near = nearest(word, Object.keys(known));
  const hint = near === undefined ? '' : `; did you mean "${near}"?`;
  return `unknown verb or word "${word}"${hint}`;
}

/** For other verbs: the options table reports its own unknown flags, all together. */
function findUnknownFlag(
  name: string,
  verb: Verb,
  flags: Readonly<Record<string, string>>,
): string | undefined {
  if (name === 'run' || name === 'redirect') return undefined;
  const unknown = Object.keys(flags).find((flag) => !Object.hasOwn(verb.flags, flag));
  if (unknown === undefined) return undefined;
  const near = nearest(unknown, Object.keys(verb.flags));
  const hint = near === undefined ? '' : `; did you mean --${near}?`;
  return `unknown flag --${unknown}${hint}`;
}

function usage(io: Io, name: string, problem: string): number {
  const place = name === 'run' ? 'nmi --help' : `nmi help ${name}`;
  io.stderr(`nmi: ${problem}${/[.?]$/.test(problem) ? ' See' : '; see'} ${place}\n`);
  return exitCodes.usage;
}
