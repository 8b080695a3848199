/** What measured prices come to in a day, for a node. Pure. */

/** In bytes, for a node. */
export interface Prices {
  readonly podBytes: number;
  readonly changeBytes: number;
  readonly statusBytes: number;
  readonly reopenBytes: number;
}

export interface Day extends Prices {
  /** Without any change: bookmarks. */
  readonly idleBytes: number;
  readonly reopens: number;
}

export interface Level {
  readonly name: string;
  /** Pods that begin and end on a node in a day. */
  readonly pods: number;
  /** Identities and bindings that are written in a cluster in a day; each gets a status. */
  readonly objects: number;
}

export const levels: readonly Level[] = [
  { name: 'quiet', pods: 10, objects: 20 },
  { name: 'usual', pods: 100, objects: 200 },
  { name: 'busy', pods: 1_000, objects: 2_000 },
];

/** One of the five watches is of pods. */
const podShare = 1 / 5;

export function bytesPerDay(level: Level, day: Day, without?: 'no pods'): number {
  const base = day.idleBytes + day.reopens * day.reopenBytes;
  const objects = level.objects * (day.changeBytes + day.statusBytes);
  if (without === 'no pods') return base * (1 - podShare) + objects;
  return base + objects + level.pods * day.podBytes;
}

/**
 * How many times fewer bytes a relay for 200 nodes would take from the API server: it watches objects
 * once for all, and still the pods of each node.
 */
export function relayGain(level: Level, day: Day, nodes = 200): number {
  const all = bytesPerDay(level, day);
  const objects = bytesPerDay(level, day, 'no pods');
  return all / (all - objects + objects / nodes);
}
