/**
 * Splits a command line with yargs' parser, in the syntax of the replaced system (pflag):
 * `--flag=value`, `--flag value`, a bare boolean is `true`, the last of repeated flags wins.
 * Nothing is validated here: unknown flags are reported with all other problems.
 */
import type { Options } from 'yargs';
import { Parser } from 'yargs/helpers';

export interface Args {
  /** Spelling without dashes → text. */
  readonly flags: Readonly<Record<string, string>>;
  readonly rest: readonly string[];
}

/** @returns the problem as a text if a flag has no value. */
export function parseArgs(
  words: readonly string[],
  known: Readonly<Record<string, Options>>,
): Args | string {
  const names = Object.keys(known);
  const booleans = new Set(names.filter((each) => known[each]?.type === 'boolean'));
  const aliases = Object.entries(known).flatMap(([flag, { alias }]) =>
    typeof alias === 'string' ? [[flag, alias] as const] : [],
  );
  const { argv, error } = Parser.detailed(completeBooleans(words, booleans), {
    alias: Object.fromEntries(aliases),
    string: names,
    // Also for booleans: of a value that may be missing, the parser removes quotes.
    narg: Object.fromEntries(names.map((each) => [each, 1])),
    configuration: {
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'duplicate-arguments-array': false,
      'parse-numbers': false,
      'short-option-groups': false,
      'strip-aliased': true,
    },
  });
  if (error !== null) return describe(error);
  const { _: rest, ...flags } = argv;
  const texts = Object.entries(flags).map(([flag, value]) => [flag, String(value)] as const);
  return { flags: Object.fromEntries(texts), rest: rest.map(String) };
}

function describe({ message }: Error): string {
  const bare = /^Not enough arguments following: (.+)$/.exec(message)?.[1];
  if (bare === undefined) return message;
  const flag = bare.length === 1 ? `-${bare}` : `--${bare}`;
  return `${flag} has no value; write ${flag}=VALUE`;
}

/** Adds `=true` to each bare boolean: the parser takes every flag as text, with the next word. */
function completeBooleans(words: readonly string[], booleans: ReadonlySet<string>) {
  return words.map((word) => {
    // The shorthand of glog's verbosity, with its value attached.
    if (/^-v\d+$/.test(word)) return `-v=${word.slice(2)}`;
    const flag = /^--?([A-Za-z][\w-]*)$/.exec(word)?.[1];
    return flag !== undefined && booleans.has(flag) ? `${word}=true` : word;
  });
}
