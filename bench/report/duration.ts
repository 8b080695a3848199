/** Duration of a whole run, from the durations of its scenarios. Pure. */
import type { Results } from '../core/results.ts';

/** Run only when named. */
const extras = new Set(['soak', 'fleet', 'against']);

/** In whole minutes. */
export function minutesOf({ scenarios }: Results): number {
  const parts = scenarios.filter(({ name }) => !extras.has(name));
  return Math.ceil(parts.reduce((sum, { seconds }) => sum + seconds, 0) / 60);
}
