/**
 * Explores a pure machine exhaustively: every state that can be reached, in the order of the length of its
 * shortest trace. Two questions are answered for all of them:
 *
 * 1. Is a state broken? The trace to the first one is the shortest there is.
 * 2. Is a state stuck? From each one, the machine must be able to come to a good state by its own steps, without
 *    a further step of an operator and without a crash.
 */
export interface Step<S> {
  readonly name: string;
  /** Of an operator, a user or a crash; all others are the machine's own. */
  readonly isOutside: boolean;
  readonly next: S;
}

export interface Machine<S> {
  readonly first: S;
  steps(state: S): Iterable<Step<S>>;
  /** What must never be, or undefined. */
  broken(state: S): string | undefined;
  /** What must always be possible. */
  isGood(state: S): boolean;
}

export interface Found {
  readonly problem: string;
  /** The steps to it. */
  readonly trace: readonly string[];
}

export interface Exploration {
  readonly states: number;
  readonly steps: number;
  readonly found: Found | undefined;
}

interface Visited<S> {
  readonly state: S;
  readonly from: Visited<S> | undefined;
  readonly step: string;
  /** States from which one step of its own leads here. */
  readonly before: Visited<S>[];
  leadsToGood: boolean;
}

const most = 2_000_000;

export function explore<S>(machine: Machine<S>): Exploration {
  const first: Visited<S> = visit(machine.first, undefined, '');
  const all = new Map([[JSON.stringify(machine.first), first]]);
  const queue = [first];
  let steps = 0;
  for (const at of queue) {
    const problem = machine.broken(at.state);
    if (problem !== undefined) return { states: all.size, steps, found: foundAt(at, problem) };
    for (const { name, isOutside, next } of machine.steps(at.state)) {
      steps += 1;
      const key = JSON.stringify(next);
      let reached = all.get(key);
      if (reached === undefined) {
        reached = visit(next, at, name);
        all.set(key, reached);
        queue.push(reached);
        if (queue.length > most) throw new Error('the machine has too many states');
      }
      if (!isOutside) reached.before.push(at);
    }
  }
  markGood(queue.filter(({ state }) => machine.isGood(state)));
  const stuck = queue.find(({ leadsToGood }) => !leadsToGood);
  const found = stuck === undefined ? undefined : foundAt(stuck, 'it never gets well');
  return { states: all.size, steps, found };
}

function visit<S>(state: S, from: Visited<S> | undefined, step: string): Visited<S> {
  return { state, from, step, before: [], leadsToGood: false };
}

/** Backward along the machine's own steps. */
function markGood(good: Visited<unknown>[]): void {
  for (const each of good) each.leadsToGood = true;
  for (const each of good) {
    for (const before of each.before) {
      if (before.leadsToGood) continue;
      before.leadsToGood = true;
      good.push(before);
    }
  }
}

function foundAt(at: Visited<unknown>, problem: string): Found {
  const trace: string[] = [];
  for (let each = at; each.from !== undefined; each = each.from) trace.unshift(each.step);
  return { problem: `${problem}: ${JSON.stringify(at.state)}`, trace };
}

/**
 * The states in which the machine may rest after these steps from outside. Each comes when the machine rests, or
 * the last one at any moment after the one before.
 */
export function rests<S>(
  machine: Machine<S>,
  outside: readonly string[],
  last: 'at rest' | 'at once' = 'at rest',
): readonly S[] {
  let { resting, all } = settle(machine, [machine.first]);
  for (const [index, name] of outside.entries()) {
    const isHurried = last === 'at once' && index > 0 && index === outside.length - 1;
    const next = (isHurried ? all : resting).flatMap((state) =>
      [...machine.steps(state)].filter((step) => step.name === name).map((step) => step.next),
    );
    ({ resting, all } = settle(machine, next));
  }
  return resting;
}

/** All that its own steps lead to, and those from which none leads on. */
function settle<S>(
  machine: Machine<S>,
  from: readonly S[],
): { resting: readonly S[]; all: readonly S[] } {
  const reached = new Map(from.map((state) => [JSON.stringify(state), state]));
  const resting: S[] = [];
  for (const state of reached.values()) {
    const own = [...machine.steps(state)].filter(({ isOutside }) => !isOutside);
    if (own.length === 0) resting.push(state);
    for (const { next } of own) reached.set(JSON.stringify(next), next);
  }
  return { resting, all: [...reached.values()] };
}
