/**
 * Possible faults in `src`, each of which a unit test has to find: an edit of one place, and its
 * effect. `npm run test:mutation` makes them one by one, in a copy.
 */
import { posix } from 'node:path';
import { isExclusive } from '../../scripts/testing/kinds.ts';
import { mirrorsOf } from '../conventions/mirrors.ts';

/**
 * The effect; the text in the file, which occurs in it exactly once; its replacement; and, if no
 * test can find the fault, the reason.
 */
export type Fault = readonly [wrong: string, from: string, to: string, survives?: string];

/** By file. */
export type Faults = Readonly<Record<string, readonly Fault[]>>;

export interface Mutation {
  readonly file: string;
  readonly wrong: string;
  readonly from: string;
  readonly to: string;
  readonly survives: string | undefined;
}

export function mutationsOf(...lists: readonly Faults[]): readonly Mutation[] {
  return lists
    .flatMap((faults) => Object.entries(faults))
    .flatMap(([file, faults]) =>
      faults.map(([wrong, from, to, survives]) => ({ file, wrong, from, to, survives })),
    );
}

/** The text with the fault in it; undefined unless its place is in the text exactly once. */
export function mutate(text: string, { from, to }: Mutation): string | undefined {
  const at = text.indexOf(from);
  if (from === '' || at < 0 || text.indexOf(from, at + 1) >= 0) return undefined;
  return text.slice(0, at) + to + text.slice(at + from.length);
}

export interface ChosenTests {
  /** The tests of the file itself. */
  readonly own: readonly string[];
  /** The tests beside them, in the order of their names. */
  readonly others: readonly string[];
}

/** The unit tests that must find a fault in a file. @param tests every test of the repository. */
export function testsFor(file: string, tests: readonly string[]): ChosenTests {
  const mirrors = mirrorsOf(file);
  const folder = posix.dirname(mirrors[0] ?? '');
  const beside = tests.filter((test) => posix.dirname(test) === folder && !isExclusive(test));
  return {
    own: beside.filter((test) => mirrors.includes(test)),
    others: beside.filter((test) => !mirrors.includes(test)).toSorted(),
  };
}

export type Verdict = 'killed' | 'survived';

/** The difference to the list; undefined if there is none. */
export function unexpected({ survives }: Mutation, verdict: Verdict): string | undefined {
  if (verdict === 'survived' && survives === undefined) return 'no unit test finds it';
  if (verdict === 'killed' && survives !== undefined) {
    return `a test finds it, which the list calls impossible: ${survives}`;
  }
  return undefined;
}
