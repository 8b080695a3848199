/**
 * Closedness, as a pure machine: a node that boots, gets an agent, is switched over from another one, updated,
 * crashed and cleared. A pod's packet to the metadata address reaches the agent, the old agent, nobody, or the
 * real service; the last only before the first installation, and after a removal on purpose.
 */
import type { Machine, Step } from './explore.ts';

const phases = ['off', 'address', 'listens', 'installed', 'ready'] as const;
type Phase = (typeof phases)[number];

export interface ClosedState {
  /** Two, as during an update. */
  readonly agents: readonly Phase[];
  /** Pinned programs. */
  readonly programs: boolean;
  /** The agent of another project, with a rule of its own, and its removal. */
  readonly old: 'never' | 'runs' | 'gone';
  /** The node was closed since its boot, by us or by the old agent. */
  readonly wasClosed: boolean;
  readonly isRemoved: boolean;
  /** A packet was redirected to an address where nobody had ever listened since the boot. */
  readonly hasListened: boolean;
  readonly crashes: number;
  readonly boots: number;
}

export interface ClosedFaults {
  readonly removesAtStop?: boolean;
  readonly installsFirst?: boolean;
  readonly oldGoesFirst?: boolean;
}

export function closed(
  crashes: number,
  boots: number,
  faults: ClosedFaults = {},
): Machine<ClosedState> {
  return {
    first: {
      agents: ['off', 'off'],
      programs: false,
      old: 'never',
      wasClosed: false,
      isRemoved: false,
      hasListened: false,
      crashes,
      boots,
    },
    *steps(state) {
      yield* operator(state, faults);
      for (const at of [0, 1]) yield* agentSteps(state, at, faults);
    },
    broken: (state) => {
      const { programs, old, wasClosed, isRemoved, hasListened } = state;
      if (wasClosed && !programs && old !== 'runs' && !isRemoved) return 'the node is open';
      if (programs && !hasListened) return 'pods are redirected to where nobody listens';
      return undefined;
    },
    isGood: ({ agents, programs }) =>
      agents.every((phase) => phase === 'off') || (programs && agents.includes('ready')),
  };
}

function* operator(state: ClosedState, faults: ClosedFaults): Iterable<Step<ClosedState>> {
  const { agents, old, boots, crashes } = state;
  const step = (name: string, change: Partial<ClosedState>) => ({
    name,
    isOutside: true,
    next: { ...state, ...change },
  });
  if (old === 'never' && agents.every((phase) => phase === 'off') && !state.programs) {
    yield step('the old agent runs', { old: 'runs', wasClosed: true });
  }
  const mayGo = agents.includes('ready') || faults.oldGoesFirst === true;
  if (old === 'runs' && mayGo) yield step('the old agent goes', { old: 'gone' });
  for (const at of [0, 1]) {
    const phase = agents[at] ?? 'off';
    const to = (next: Phase): readonly Phase[] =>
      agents.map((each, index) => (index === at ? next : each));
    if (phase === 'off') yield step(`start ${at}`, { agents: to('address'), isRemoved: false });
    else {
      const opens = faults.removesAtStop === true ? { programs: false } : {};
      yield step(`stop ${at}`, { agents: to('off'), ...opens });
      if (crashes > 0) yield step(`crash ${at}`, { agents: to('off'), crashes: crashes - 1 });
    }
  }
  if (agents.every((phase) => phase === 'off') && state.programs) {
    yield step('nmi redirect remove', { programs: false, isRemoved: true, wasClosed: false });
  }
  if (boots > 0) {
    yield step('reboot', {
      agents: ['off', 'off'],
      programs: false,
      wasClosed: old === 'runs',
      hasListened: false,
      boots: boots - 1,
    });
  }
}

/** Own address up, listener bound, redirect installed, watches synced. */
function* agentSteps(
  state: ClosedState,
  at: number,
  faults: ClosedFaults,
): Iterable<Step<ClosedState>> {
  const phase = state.agents[at] ?? 'off';
  const next = (to: Phase, change: Partial<ClosedState> = {}): Step<ClosedState> => ({
    name: `${to} ${at}`,
    isOutside: false,
    next: {
      ...state,
      agents: state.agents.map((each, index) => (index === at ? to : each)),
      ...change,
    },
  });
  const installed = { programs: true, wasClosed: true };
  if (phase === 'address') {
    yield faults.installsFirst === true
      ? next('installed', installed)
      : next('listens', { hasListened: true });
  }
  if (phase === 'listens') yield next('installed', installed);
  if (phase === 'installed') yield next('ready', { hasListened: true });
}
