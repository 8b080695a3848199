/**
 * Converts command line words to flag texts, with the syntax of the replaced system (pflag):
 * `--flag=value`, `--flag value`, a bare boolean is `true`, the last of repeated flags wins.
 * Nothing is validated here: values stay text, and unknown flags are kept to be reported with all
 * other problems.
 */

export interface Args {
  /** Spelling without dashes → text. */
  readonly flags: Readonly<Record<string, string>>;
  /** Words that are not flags. */
  readonly rest: readonly string[];
}

/**
 * Adds `=true` to each bare boolean, so that a parser that treats every flag as text does not
 * consume the next word as its value.
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
 * The flags that need a value but come last or before another flag, as written. A negative number
 * is a value.
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

/** The flags parsed by yargs, without its own entries and `undefined` values. */
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
