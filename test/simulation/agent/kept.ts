/** Runs that once broke an invariant, each by the fault that it found. */
import type { Choice } from './search.ts';

export interface Kept extends Choice {
  readonly why: string;
}

export const kept: readonly Kept[] = [
  {
    why: 'a redirect container has a successor before its first success',
    seed: 160,
    prefer: ['update', 'undo', 'killPod'],
    only: [5, 6, 7, 8, 9, 10, 11],
  },
  {
    why: 'a new agent is refused the list of grants once',
    seed: 378,
    prefer: [],
    only: [4, 9, 10, 11],
  },
];
