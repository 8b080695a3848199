/**
 * The hand-over of the listening socket, as a pure machine: up to three pods of one node, each with a holder (the
 * container `redirect`) and an agent, a path on the host at which one holder serves the next, and two crashes.
 *
 * A holder starts: it serves its agent, asks the holder at the path for the socket, and takes the path. An agent
 * asks its own holder. Each process with the socket may give it on; only one process can open it, and only while nobody
 * else has it. A holder that is asked and cannot get the socket ends the connection, and is asked again.
 */
import type { Machine, Step } from './explore.ts';

interface PodState {
  /** `new` pods have not started; `gone` ones never start again. */
  readonly pod: 'new' | 'runs' | 'ends' | 'gone';
  readonly holder: 'off' | 'asks' | 'up';
  readonly holderHas: boolean;
  readonly agent: 'off' | 'asks' | 'serves';
  /** The pod whose holder has taken over from this one and is connected to it; -1 if there is none. */
  readonly later: number;
}

export interface HandoverState {
  readonly pods: readonly PodState[];
  /** The pod whose holder made the file at the path; -1 if there is none. */
  readonly path: number;
  readonly crashes: number;
  /** An agent has served. */
  readonly hasServed: boolean;
  /** A holder has removed the file of another one that was up. */
  readonly theft: boolean;
}

export interface HandoverFaults {
  /** An ending holder removes what is at the path. */
  readonly removesPath?: boolean;
  /** A holder serves its agent only after it has asked the holder before. */
  readonly servesLate?: boolean;
  /** A holder that is up does not look at the path again. */
  readonly looksOnce?: boolean;
}

const unborn: PodState = { pod: 'new', holder: 'off', holderHas: false, agent: 'off', later: -1 };

export function handover(
  pods: number,
  crashes: number,
  faults: HandoverFaults = {},
): Machine<HandoverState> {
  const all = Array.from({ length: pods }, (_, index) => index);
  return {
    first: { pods: all.map(() => unborn), path: -1, crashes, hasServed: false, theft: false },
    *steps(state) {
      for (const at of all) {
        yield* outside(state, at);
        yield* holderSteps(state, at, faults);
        yield* agentSteps(state, at, faults);
      }
    },
    broken: (state) => {
      if (state.theft) return 'a holder removed the path of another one';
      if (state.crashes < crashes || !state.hasServed) return undefined;
      return serving(state) ? undefined : 'nobody serves, though nothing crashed';
    },
    isGood: (state) => {
      const running = state.pods.filter(({ pod }) => pod === 'runs');
      const areUp = running.every(
        ({ holder, agent, holderHas }) => holder === 'up' && agent === 'serves' && holderHas,
      );
      const isPathServed = running.length === 0 || state.pods[state.path]?.pod === 'runs';
      return areUp && isPathServed && state.pods.every(({ pod }) => pod !== 'ends');
    },
  };
}

function serving({ pods }: HandoverState): boolean {
  return pods.some(({ agent }) => agent === 'serves');
}

function isFree({ pods }: HandoverState): boolean {
  return !pods.some(({ holderHas, agent }) => holderHas || agent === 'serves');
}

function changed(
  state: HandoverState,
  at: number,
  change: Partial<PodState>,
  more: Partial<HandoverState> = {},
): HandoverState {
  // The end of a holder ends its connections.
  const isOver = change.holder === 'off';
  const pods = state.pods.map((pod, index) => {
    if (index === at) return { ...pod, ...change, ...(isOver ? { later: -1 } : {}) };
    return isOver && pod.later === at ? { ...pod, later: -1 } : pod;
  });
  const next = { ...state, ...more, pods };
  return { ...next, hasServed: next.hasServed || serving(next) };
}

function* outside(state: HandoverState, at: number): Iterable<Step<HandoverState>> {
  const pod = state.pods[at] ?? unborn;
  const step = (name: string, next: HandoverState) => ({
    name: `${name} ${at}`,
    isOutside: true,
    next,
  });
  const others = state.pods.some(
    ({ agent, pod: phase }, index) => index !== at && agent === 'serves' && phase === 'runs',
  );
  const isNext = at === 0 || state.pods[at - 1]?.pod !== 'new';
  if (pod.pod === 'new' && isNext) {
    yield step('start', changed(state, at, { pod: 'runs', holder: 'asks', agent: 'asks' }));
  }
  if (pod.pod === 'runs' && others) yield step('end', changed(state, at, { pod: 'ends' }));
  if (state.crashes === 0 || pod.pod !== 'runs') return;
  const crashes = state.crashes - 1;
  if (pod.holder !== 'off') {
    yield step(
      'crash holder',
      changed(state, at, { holder: 'off', holderHas: false }, { crashes }),
    );
  }
  if (pod.agent !== 'off')
    yield step('crash agent', changed(state, at, { agent: 'off' }, { crashes }));
}

function* holderSteps(
  state: HandoverState,
  at: number,
  faults: HandoverFaults,
): Iterable<Step<HandoverState>> {
  const pod = state.pods[at] ?? unborn;
  const own = (name: string, next: HandoverState) => ({
    name: `${name} ${at}`,
    isOutside: false,
    next,
  });
  if (pod.pod === 'runs' && pod.holder === 'off')
    yield own('restart holder', changed(state, at, { holder: 'asks' }));
  if (pod.pod === 'ends' && pod.agent === 'off') {
    const isOwn = state.path === at;
    const removed =
      faults.removesPath === true
        ? { path: -1, theft: !isOwn && state.pods[state.path]?.holder === 'up' }
        : {};
    yield own(
      'end holder',
      changed(state, at, { pod: 'gone', holder: 'off', holderHas: false }, removed),
    );
  }
  if (pod.holder === 'off') return;
  const before = state.pods[state.path];
  const isAnswered = state.path !== at && before?.holder === 'up';
  if (pod.holder === 'up' && pod.pod === 'runs' && !pod.holderHas && isFree(state)) {
    yield own('open', changed(state, at, { holderHas: true }));
  }
  const looksAgain = faults.looksOnce !== true && pod.pod === 'runs' && pod.later === -1;
  if (pod.holder !== 'asks' && !looksAgain) return;
  if (!isAnswered) {
    if (pod.holder === 'asks' || state.path !== at) {
      yield own('take path', changed(state, at, { holder: 'up' }, { path: at }));
    }
    return;
  }
  // Neither has the socket, and it is taken: the connection ends, and is tried again.
  if (!pod.holderHas && !before.holderHas && !isFree(state)) return;
  const given = changed(state, state.path, { holderHas: true, later: at });
  yield own('take over', changed(given, at, { holder: 'up', holderHas: true }, { path: at }));
}

function* agentSteps(
  state: HandoverState,
  at: number,
  faults: HandoverFaults,
): Iterable<Step<HandoverState>> {
  const pod = state.pods[at] ?? unborn;
  const own = (name: string, next: HandoverState) => ({
    name: `${name} ${at}`,
    isOutside: false,
    next,
  });
  if (pod.pod === 'ends' && pod.agent !== 'off')
    yield own('end agent', changed(state, at, { agent: 'off' }));
  if (pod.pod !== 'runs') return;
  if (pod.agent === 'off') yield own('restart agent', changed(state, at, { agent: 'asks' }));
  const isServed = pod.holder === 'up' || (pod.holder === 'asks' && faults.servesLate !== true);
  if (!isServed) return;
  if (pod.agent === 'serves' && !pod.holderHas)
    yield own('give back', changed(state, at, { holderHas: true }));
  if (pod.agent === 'asks' && pod.holderHas)
    yield own('take socket', changed(state, at, { agent: 'serves' }));
}
