/** What happens in a run besides the usual traffic: a list by the seed, which can be shortened. */
import { Chance } from './chance.ts';

export const kinds = {
  // The operator.
  update: 2,
  undo: 1.5,
  killPod: 1,
  conditionsUpdated: 1,
  reboot: 0.5,
  drain: 0.5,
  // Processes.
  term: 1,
  kill: 2,
  freeze: 2,
  // The kernel.
  drift: 1,
  kernelRefuses: 0.7,
  recordsFull: 0.7,
  // The API server.
  closeWatches: 1,
  expireVersions: 1,
  silentWatches: 1,
  cutConnections: 1,
  slowEvents: 1,
  reorderedKinds: 1,
  serverBehind: 1,
  restored: 0.7,
  apiHangs: 0.7,
  apiFails: 1,
  apiForbids: 0.7,
  // The metadata service.
  imdsFails: 1,
  imdsThrottles: 0.7,
  imdsHangs: 0.7,
  imdsClosed: 0.7,
  imdsSlow: 0.7,
  imdsForgets: 0.5,
  // The network and the clock.
  cutNode: 1,
  lateBytes: 0.7,
  lostBytes: 0.4,
  clockJumps: 0.7,
  // Users.
  podAdded: 1.5,
  podRemoved: 1.5,
  podReplaced: 2,
  podRelabelled: 1,
  bindingDeleted: 2,
  bindingRestored: 1.5,
  identityChanged: 1.5,
  grantDeleted: 1,
  grantRestored: 1,
  exceptionWritten: 1,
  exceptionDeleted: 1,
  hostileObject: 1,
  flood: 0.7,
  rudeRequests: 1.5,
  steal: 1.5,
} as const;

export type Kind = keyof typeof kinds;

export interface Action {
  readonly number: number;
  readonly atMs: number;
  readonly kind: Kind;
  /** From 0 up to 1: what it hits, and how long it lasts. */
  readonly which: number;
  readonly size: number;
}

/** @param weights of kinds that the search prefers. */
export function planOf(
  seed: number,
  weights: Partial<Record<Kind, number>> = {},
): readonly Action[] {
  const chance = new Chance(seed ^ 0x5eed);
  const count = chance.between(4, 17);
  const spanMs = chance.pick([3_000, 12_000, 30_000, 45_000]);
  const actions = Array.from({ length: count }, () => ({
    atMs: chance.between(0, spanMs),
    kind: chance.name({ ...kinds, ...weights }),
    which: chance.between(0, 1_000) / 1_000,
    size: chance.between(0, 1_000) / 1_000,
  }));
  return actions
    .toSorted((one, other) => one.atMs - other.atMs)
    .map((action, number) => ({ ...action, number }));
}
