/** Values of flags: what yargs would lose is refused, since a change would go to another cluster or namespace. */
import { parseDuration } from '../../base/time/duration.ts';
import { usageError, type PluginError } from '../base/plugin-error.ts';
import type { Parser } from './verb.ts';

/** What yargs knows of the current command line; its types do not have it. */
interface ParserState {
  getOptions(): { readonly array: readonly string[] };
  /** Flags that were not given and have a default. */
  readonly parsed: { readonly defaulted: Readonly<Record<string, boolean>> };
}

/** As kubectl writes it; a number alone is seconds. In milliseconds. @throws PluginError */
export function durationOf(flag: string, text: string): number {
  const ms = parseDuration(/^\d+(?:\.\d+)?$/.test(text) ? `${text}s` : text);
  if (ms !== undefined) return ms;
  throw usageError(
    `${flag} is "${text}", which is no duration`,
    'Write it as 90s, 2m or 1m30s; a number alone is seconds.',
  );
}

export function refuseLostValues(words: readonly string[], parser: Parser): Parser {
  return parser.check((flags) => {
    const empty = words.find((word) => /^--[a-z-]+=$/.test(word));
    if (empty !== undefined) throw withoutValue(empty.slice(0, -1));
    if (!hasState(parser)) throw new TypeError('this yargs does not show which flags are given');
    const { defaulted } = parser.parsed;
    const lists = parser.getOptions().array;
    for (const [name, value] of Object.entries(flags)) {
      // yargs adds each name in camel case, too.
      if (!/^[a-z][a-z-]*$/.test(name) || defaulted[name] === true) continue;
      const flag = name.length === 1 ? `-${name}` : `--${name}`;
      const values: readonly unknown[] = Array.isArray(value) ? value : [value];
      if (Array.isArray(value) && !lists.includes(name)) {
        throw usageError(
          `${flag} is given ${values.length} times, and has one value`,
          'Give it once.',
        );
      }
      if (values.length === 0 || values.includes('')) throw withoutValue(flag);
    }
    return true;
  });
}

function hasState(parser: object): parser is ParserState {
  return 'getOptions' in parser;
}

function withoutValue(flag: string): PluginError {
  return usageError(`${flag} has no value`, 'Give one, or leave it out.');
}
