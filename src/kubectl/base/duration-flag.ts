/** A flag that is a duration as kubectl writes it; a number alone is seconds. */
import { parseDuration } from '../../base/time/duration.ts';
import { usageError } from './plugin-error.ts';

export function durationFlag(standard: string, describe: string) {
  return {
    type: 'string',
    default: standard,
    requiresArg: true,
    describe: `${describe} As 90s, 2m or 1m30s.`,
  } as const;
}

/** In milliseconds. @throws PluginError */
export function readDuration(name: string, text: string): number {
  const ms = parseDuration(/^\d+(?:\.\d+)?$/.test(text) ? `${text}s` : text);
  if (ms !== undefined) return ms;
  throw usageError(
    `--${name} is "${text}", which is no duration`,
    'Write it as 90s, 2m or 1m30s; a number alone is seconds.',
  );
}
