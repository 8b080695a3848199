/** Runs seeds, steers by what was seldom seen, and shortens what fails. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Fault } from './fault.ts';
import { states } from './actions.ts';
import { apiServer } from './cloud.ts';
import { loadWhole } from './load.ts';
import { kinds, planOf, type Kind } from './plan.ts';
import { runSeed, type Outcome } from './run.ts';
import type { Loaded } from './world.ts';

/** Loads the code; the folder of the kubeconfig is removed with it. */
export async function openLoaded(fault?: Fault): Promise<Loaded & Disposable> {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-simulate-'));
  const kubeconfig = join(folder, 'kubeconfig');
  const context = { cluster: 'simulated', user: 'agent' };
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'simulated',
      clusters: [
        { name: 'simulated', cluster: { server: `http://${apiServer.ip}:${apiServer.port}` } },
      ],
      users: [{ name: 'agent', user: {} }],
      contexts: [{ name: 'simulated', context }],
    }),
  );
  const code = await loadWhole(fault);
  return {
    code,
    fault,
    kubeconfig,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export interface Choice {
  readonly seed: number;
  /** Kinds that come more often. */
  readonly prefer: readonly Kind[];
  /** Numbers of the actions that are done; undefined for all. */
  readonly only: readonly number[] | undefined;
}

export function runChoice(loaded: Loaded, { seed, prefer, only }: Choice): Promise<Outcome> {
  const plan = planOf(seed, Object.fromEntries(prefer.map((kind) => [kind, 12])));
  const chosen = only === undefined ? plan : plan.filter(({ number }) => only.includes(number));
  return runSeed(loaded, seed, chosen);
}

/** How often each kind of fault has met each state of a node. */
export class Coverage {
  readonly #pairs = new Map<string, number>();

  add(pairs: ReadonlyMap<string, number>): void {
    for (const [pair, count] of pairs) this.#pairs.set(pair, (this.#pairs.get(pair) ?? 0) + count);
  }

  #of(kind: string, state: string): number {
    return this.#pairs.get(`${kind} × ${state}`) ?? 0;
  }

  /** The kinds that lack the most states. */
  get rare(): readonly Kind[] {
    const seen = (kind: Kind): number => Math.min(...states.map((state) => this.#of(kind, state)));
    return (Object.keys(kinds) as Kind[])
      .toSorted((one, other) => seen(one) - seen(other))
      .slice(0, 3);
  }

  render(): string {
    const rows = Object.keys(kinds).map((kind) =>
      [kind.padEnd(18), ...states.map((state) => String(this.#of(kind, state)).padStart(11))].join(
        '',
      ),
    );
    const head = ['fault'.padEnd(18), ...states.map((state) => state.padStart(11))].join('');
    const all = Object.keys(kinds).length * states.length;
    return [head, ...rows, `${this.#pairs.size} of ${all} pairs were seen`].join('\n');
  }
}

/** What stays the same when numbers and names differ. */
function sortOf(failure: string | undefined): string | undefined {
  return failure
    ?.split('\n', 1)[0]
    ?.replace(/(?:agent|pod|node)-?\d+(?:-of-\w+)?/g, '#')
    .replace(/[\d.,]+/g, '#')
    .slice(0, 60);
}

const maxShorterRuns = 80;

/** The shortest list of actions that still breaks the same invariant. */
export async function shorten(loaded: Loaded, choice: Choice, found: Outcome): Promise<Choice> {
  const sort = sortOf(found.failure);
  let kept = found.plan.map(({ number }) => number);
  let runsLeft = maxShorterRuns;
  const fails = async (only: readonly number[]): Promise<boolean> => {
    runsLeft -= 1;
    return sortOf((await runChoice(loaded, { ...choice, only })).failure) === sort;
  };
  let size = Math.ceil(kept.length / 2);
  while (size >= 1) {
    let at = 0;
    while (at < kept.length) {
      const shorter = [...kept.slice(0, at), ...kept.slice(at + size)];
      if (runsLeft > 0 && (await fails(shorter))) kept = shorter;
      else at += size;
    }
    size = size === 1 ? 0 : Math.ceil(size / 2);
  }
  return { ...choice, only: kept };
}

/** The command that repeats a run. */
export function commandOf({ seed, prefer, only }: Choice): string {
  const preferred = prefer.length === 0 ? '' : ` --prefer ${prefer.join()}`;
  const chosen = only === undefined ? '' : ` --only ${only.length === 0 ? 'none' : only.join()}`;
  return `./dev simulate --seed ${seed}${preferred}${chosen}`;
}

export function storyOf(choice: Choice, { failure, story, hash }: Outcome): string {
  const end = failure === undefined ? 'nothing was broken' : `BROKEN ${failure}`;
  return [...story, end, `trace ${hash}`, `to repeat it: ${commandOf(choice)}`].join('\n');
}

export interface Search {
  readonly failed: readonly { readonly choice: Choice; readonly outcome: Outcome }[];
  readonly coverage: Coverage;
  readonly events: number;
  readonly virtualMs: number;
  readonly answers: number;
  readonly tokens: number;
}

/** After each of these a node is in one of the states that faults seldom meet. */
const beginnings = ['update', 'killPod', 'reboot', 'kill'] as const satisfies readonly Kind[];

/**
 * Every second run prefers the kinds of faults that have met the fewest states so far, and what leads to such a
 * state: 200 runs then see 193 pairs of 220; without, and with every fourth run steered, 200 see 175 and 300 see 194.
 */
export async function search(
  loaded: Loaded,
  first: number,
  last: number,
  onRun: (choice: Choice, outcome: Outcome) => void = () => undefined,
): Promise<Search> {
  // Stacks of errors that are handled take a twentieth of the time. The run of a story has them.
  using _stacks = withoutStacks();
  const coverage = new Coverage();
  const failed: { choice: Choice; outcome: Outcome }[] = [];
  const sums = { events: 0, virtualMs: 0, answers: 0, tokens: 0 };
  for (let seed = first; seed <= last; seed += 1) {
    const steers = seed % 2 === 0;
    const beginning = beginnings[(seed / 2) % beginnings.length];
    const prefer = steers && beginning !== undefined ? [...coverage.rare, beginning] : [];
    const choice: Choice = { seed, prefer, only: undefined };
    const outcome = await runChoice(loaded, choice);
    coverage.add(outcome.pairs);
    if (outcome.failure !== undefined) failed.push({ choice, outcome });
    for (const key of ['events', 'virtualMs', 'answers', 'tokens'] as const)
      sums[key] += outcome[key];
    onRun(choice, outcome);
  }
  return { failed, coverage, ...sums };
}

function withoutStacks(): Disposable {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  return { [Symbol.dispose]: () => (Error.stackTraceLimit = stackTraceLimit) };
}
