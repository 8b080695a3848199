/**
 * Command line words to flag texts, in the way of the replaced system (pflag): `--flag=value`,
 * `--flag value`, a bare boolean is `true`, the last of repeated flags wins. Nothing is judged
 * here: values stay text, and unknown flags come along to be reported with all other problems.
 */

export interface Args {
  /** Spelling without dashes → text. */
  readonly flags: Readonly<Record<string, string>>;
  /** Words that are no flags. */
  readonly rest: readonly string[];
}

/**
 * Gives each bare boolean its `=true`, so that a parser which takes every flag for text does not
 * swallow the word behind it.
 */
export function completeBooleans(
  args: readonly string[],
  isBoolean: (flag: string) => boolean,
): readonly string[] {
  return args.map((word) => {
    // The shorthand of glog's verbosity, with its value attached.
    if (/^-v\d+$/.test(word)) return `-v=${word.slice(2)}`;
    const flag = /^--?([A-Za-z][\w-]*)$/.exec(word)?.[1];
    return flag !== undefined && isBoolean(flag) ? `${word}=true` : word;
  });
}

/**
 * Those that take a value and come last or before another flag, as written. A negative
 * number is a value.
 */
export function flagsWithoutValue(
  args: readonly string[],
  takesValue: (flag: string) => boolean,
): readonly string[] {
  return args.filter((word, index) => {
    const flag = /^--?([A-Za-z][\w-]*)$/.exec(word)?.[1];
    if (flag === undefined || !takesValue(flag)) return false;
    return /^--?[A-Za-z]|^--$/.test(args[index + 1] ?? '--');
  });
}

/** What yargs parsed, with its own entries and its `undefined`s taken out. */
export function flagTexts(parsed: Readonly<Record<string, unknown>>): Args {
  const flags: Record<string, string> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '_' || name === '$0' || value === undefined) continue;
    flags[name] = lastText(value);
  }
  const rest = Array.isArray(parsed['_']) ? parsed['_'].map(String) : [];
  return { flags, rest };
}

function lastText(value: unknown): string {
  const last: unknown = Array.isArray(value) ? value.at(-1) : value;
  if (typeof last === 'string') return last;
  return typeof last === 'boolean' || typeof last === 'number' ? String(last) : '';
}
