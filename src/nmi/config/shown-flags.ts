/** The flags in force, in a form that may be part of a bug report. */
import type { Config } from './config.ts';
import { hasFlag, options, type Option } from './options.ts';

const redacted = '<redacted>';

/** By name, sorted. For a free text only the default is shown. */
export function shownFlags(config: Config): ReadonlyMap<string, string> {
  const values: Readonly<Record<string, unknown>> = config;
  const flags = options
    .filter(hasFlag)
    .map((option) => [option.name, showValue(option, values[option.key])] as const);
  return new Map(flags.toSorted(([one], [other]) => (one < other ? -1 : 1)));
}

function showValue({ type, default: text }: Option, value: unknown): string {
  const shown = type.show?.(value);
  if (shown !== undefined) return shown;
  const isDefault = JSON.stringify(value) === JSON.stringify(type.parse(text));
  return isDefault ? text : redacted;
}
