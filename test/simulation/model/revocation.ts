/**
 * Revocation, as a pure machine: one right that a user gives and takes away, one agent that learns of it by a list
 * and a watch, and a clock of whole units. The watch may be late, close, expire or go silent; the agent may crash.
 * A right that has ended is used for at most the limit of staleness, plus the unit that a decision is kept, plus the
 * unit in which the request comes.
 */
import type { Machine, Step } from './explore.ts';

export interface RevocationState {
  readonly time: number;
  readonly right: boolean;
  /** When it last ended; -1 if never. */
  readonly endedAt: number;
  /** What the agent has read; undefined before its first list. */
  readonly known: boolean | undefined;
  /** When that was last proven; -1 before. */
  readonly provenAt: number;
  /** Events of an open watch arrive; those of a silent one do not, and no one notices. */
  readonly watch: 'none' | 'open' | 'silent';
  /** A version was lost: only a list helps. */
  readonly isExpired: boolean;
  /** When the cached decision was made; -1 if there is none. */
  readonly decidedAt: number;
  readonly faults: number;
  /** A token was given in this unit, by a decision of now. */
  readonly gave: boolean;
}

export interface RevocationFaults {
  readonly hasNoLimit?: boolean;
  readonly keepsDecision?: boolean;
  readonly keepsUnlisted?: boolean;
  readonly answersUnsynced?: boolean;
}

const end = 9;
const limit = 3;
const decisionAge = 1;

export function revocation(
  faultBudget: number,
  faults: RevocationFaults = {},
): Machine<RevocationState> {
  const bound = limit + decisionAge + 1;
  return {
    first: {
      time: 0,
      right: true,
      endedAt: -1,
      known: undefined,
      provenAt: -1,
      watch: 'none',
      isExpired: true,
      decidedAt: -1,
      faults: faultBudget,
      gave: false,
    },
    *steps(state) {
      yield* outside(state);
      yield* own(state, faults);
    },
    broken: ({ gave, right, endedAt, time }) =>
      gave && !right && time - endedAt > bound
        ? `a token ${time - endedAt} units after the right ended`
        : undefined,
    // The agent can always come to know what is true.
    isGood: ({ known, right, time, watch }) =>
      time === end || (known === right && watch === 'open'),
  };
}

function* outside(state: RevocationState): Iterable<Step<RevocationState>> {
  const { time, right, watch, faults } = state;
  const step = (name: string, change: Partial<RevocationState>) => ({
    name,
    isOutside: true,
    next: { ...state, gave: false, ...change },
  });
  yield right ? step('revoke', { right: false, endedAt: time }) : step('give', { right: true });
  if (faults === 0) return;
  const left = faults - 1;
  if (watch !== 'none') yield step('the watch closes', { watch: 'none', faults: left });
  if (watch === 'open') yield step('the watch goes silent', { watch: 'silent', faults: left });
  yield step('the version expires', { watch: 'none', isExpired: true, faults: left });
  yield step('the agent crashes', {
    watch: 'none',
    known: undefined,
    provenAt: -1,
    isExpired: true,
    decidedAt: -1,
    faults: left,
  });
}

function* own(state: RevocationState, faults: RevocationFaults): Iterable<Step<RevocationState>> {
  const { time, right, known, watch, isExpired, provenAt, decidedAt } = state;
  const step = (name: string, change: Partial<RevocationState>) => ({
    name,
    isOutside: false,
    next: { ...state, gave: false, ...change },
  });
  // A change of what it has read makes the decision invalid.
  const learned = (fact: boolean): Partial<RevocationState> => ({
    known: fact,
    provenAt: time,
    decidedAt: fact === known || faults.keepsDecision === true ? decidedAt : -1,
  });
  const isStale = time - provenAt > limit;
  if (time < end) yield step('time passes', { time: time + 1 });
  if (watch === 'none' && isExpired) {
    const listed = faults.keepsUnlisted === true && known === true ? true : right;
    yield step('list', { ...learned(listed), isExpired: false, watch: 'open' });
  } else if (watch === 'none') yield step('watch', { watch: 'open' });
  if (watch === 'open' && !isExpired && (known !== right || provenAt !== time)) {
    yield step(
      'event or bookmark',
      learned(faults.keepsUnlisted === true ? (known ?? right) : right),
    );
  }
  if (watch === 'silent' && isStale) yield step('a check replaces the watch', { watch: 'none' });
  const isCached =
    decidedAt >= 0 && (time - decidedAt <= decisionAge || faults.keepsDecision === true);
  const isTrusted = faults.hasNoLimit === true || !isStale;
  const isSynced = known !== undefined || faults.answersUnsynced === true;
  const decides = isSynced && isTrusted && (known ?? true);
  if (!isCached && decides) yield step('a request is granted', { decidedAt: time, gave: true });
  if (isCached) yield step('a request is granted from the cache', { gave: true });
}
