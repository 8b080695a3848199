/** How long a whole run takes, by how long its parts took. Pure. */
import type { Results } from '../core/results.ts';

/** Only when they are named. */
const extras = new Set(['soak', 'against']);

/** In minutes, whole ones. */
export function minutesOf({ scenarios }: Results): number {
  const parts = scenarios.filter(({ name }) => !extras.has(name));
  return Math.ceil(parts.reduce((sum, { seconds }) => sum + seconds, 0) / 60);
}
