/**
 * Runs that once broke an invariant, each by the fault that it found: their actions, which a seed gives only as long
 * as nobody changes the plan.
 */
import type { Action } from './plan.ts';

export interface Kept {
  readonly why: string;
  readonly actions: readonly Omit<Action, 'number'>[];
}

export const kept: readonly Kept[] = [
  {
    why: 'a redirect container has a successor before its first success',
    actions: [
      { atMs: 1589, kind: 'killPod', which: 0.536, size: 0.798 },
      { atMs: 2002, kind: 'bindingRestored', which: 0.973, size: 0.163 },
      { atMs: 2114, kind: 'kernelRefuses', which: 0.276, size: 0.996 },
      { atMs: 2373, kind: 'killPod', which: 0.706, size: 0.823 },
      { atMs: 2401, kind: 'slowEvents', which: 0.333, size: 0.82 },
      { atMs: 2470, kind: 'update', which: 0.577, size: 0.15 },
      { atMs: 2583, kind: 'podRemoved', which: 0.877, size: 0.186 },
    ],
  },
  {
    why: 'a new agent is refused the list of grants once',
    actions: [
      { atMs: 863, kind: 'freeze', which: 0.046, size: 0.83 },
      { atMs: 1511, kind: 'freeze', which: 0.077, size: 0.587 },
      { atMs: 1586, kind: 'apiForbids', which: 0.957, size: 0.267 },
      { atMs: 2300, kind: 'update', which: 0.355, size: 0.412 },
    ],
  },
  {
    why: 'the list of grants is forbidden once after an expired version',
    actions: [{ atMs: 200_000, kind: 'apiForbids', which: 0.957, size: 0.05 }],
  },
  {
    why: 'the kind of grants is missing once after an expired version',
    actions: [{ atMs: 200_000, kind: 'apiForbids', which: 0.003, size: 0.05 }],
  },
  {
    why: 'an agent begins while the API server has a pod that has left its address',
    actions: [
      { atMs: 522, kind: 'bindingRestored', which: 0.588, size: 0.073 },
      { atMs: 1391, kind: 'cutConnections', which: 0.859, size: 0.759 },
      { atMs: 2859, kind: 'slowEvents', which: 0.848, size: 0.634 },
      { atMs: 3656, kind: 'recordsFull', which: 0.287, size: 0.464 },
      { atMs: 4560, kind: 'podAdded', which: 0.911, size: 0.856 },
      { atMs: 4873, kind: 'imdsSlow', which: 0.649, size: 0.896 },
      { atMs: 5534, kind: 'podReplaced', which: 0.991, size: 0.108 },
      { atMs: 5900, kind: 'update', which: 0.813, size: 0.64 },
      { atMs: 6777, kind: 'undo', which: 0.057, size: 0.546 },
      { atMs: 7006, kind: 'identityChanged', which: 0.596, size: 0.284 },
      { atMs: 7999, kind: 'bindingRestored', which: 0.61, size: 0.422 },
      { atMs: 8982, kind: 'kill', which: 0.863, size: 0.909 },
      { atMs: 9093, kind: 'bindingDeleted', which: 0.336, size: 0.501 },
      { atMs: 11718, kind: 'imdsForgets', which: 0.373, size: 0.67 },
      { atMs: 11740, kind: 'imdsFails', which: 0.346, size: 0.444 },
    ],
  },
  {
    why: 'a kernel refuses ten installations, and the pauses between the tries grow',
    actions: [
      { atMs: 1051, kind: 'kernelRefuses', which: 0.896, size: 0.674 },
      { atMs: 2099, kind: 'kernelRefuses', which: 0.098, size: 0.647 },
      { atMs: 6014, kind: 'kernelRefuses', which: 0.68, size: 0.35 },
      { atMs: 7088, kind: 'kernelRefuses', which: 0.597, size: 0.89 },
    ],
  },
  {
    why: 'an identity is seen late, and a grant for what it names no longer',
    actions: [
      { atMs: 500, kind: 'grantDeleted', which: 0.408, size: 0.871 },
      { atMs: 1500, kind: 'reorderedKinds', which: 0.034, size: 0.9 },
      { atMs: 3000, kind: 'identityChanged', which: 0.415, size: 0.858 },
      { atMs: 5000, kind: 'identityChanged', which: 0.415, size: 0.015 },
      { atMs: 5100, kind: 'grantRestored', which: 0.408, size: 0.1 },
    ],
  },
  {
    why: 'of two processes that write conditions, one sees a grant as it was before a restore of the API server',
    actions: [
      { atMs: 19472, kind: 'restored', which: 0.363, size: 0.57 },
      { atMs: 28109, kind: 'grantRestored', which: 0.64, size: 0.682 },
      { atMs: 34062, kind: 'conditionsUpdated', which: 0.965, size: 0.81 },
    ],
  },
  {
    why: 'of two processes that write conditions, one has silent watches',
    actions: [
      { atMs: 109, kind: 'undo', which: 0.867, size: 0.609 },
      { atMs: 390, kind: 'imdsClosed', which: 0.435, size: 0.164 },
      { atMs: 689, kind: 'imdsFails', which: 0.608, size: 0.67 },
      { atMs: 853, kind: 'expireVersions', which: 0.769, size: 0.439 },
      { atMs: 970, kind: 'identityChanged', which: 0.06, size: 0.421 },
      { atMs: 1646, kind: 'silentWatches', which: 0.254, size: 0.905 },
      { atMs: 2889, kind: 'grantRestored', which: 0.859, size: 0.153 },
      { atMs: 2953, kind: 'conditionsUpdated', which: 0.071, size: 0.772 },
    ],
  },
];
