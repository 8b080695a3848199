import { setTimeout as delay } from 'node:timers/promises';
import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { subjects, type Figure } from '../core/results.ts';
import { openFabricNode, type FabricNode } from '../fixture/fabric-node.ts';
import { cpuMsOf, endedChildrenMsOf, wakeUpsOf } from '../machine/cpu-time.ts';
import { memoryOf } from '../machine/memory.ts';
import type { Scenario } from './scenario.ts';

/** Compilation in the background has ended, and spare memory was returned once. */
const settleMs = 65_000;
/** With one bookmark of each watch. */
const idleMs = 60_000;

/** One process, or both containers of an agent. */
interface Idler {
  readonly name: string;
  readonly pids: readonly number[];
}

export const idle: Scenario = {
  name: 'idle',
  title: 'Both containers without a request, with 250 pods, 10,000 identities, 20,000 bindings',
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const obstacle = findFabricObstacle();
    if (obstacle !== undefined) return { notes: [`Left out: ${obstacle}.`] };
    const figures: Figure[] = [];
    for (const redirect of ['ebpf', 'iptables'] as const) {
      // One after the other: processes of one file share memory, which is divided among them.
      await using alone = stack.use(new AsyncDisposableStack());
      const plan = { redirect, isSplit: true, executable, rival: undefined };
      const { agentFlags } = options;
      const node = await openFabricNode(`idle${redirect}`, { ...plan, agentFlags }, alone);
      await delay(settleMs);
      const idlers = idlersOf(node, redirect === 'ebpf' ? 'eBPF' : 'iptables');
      figures.push(...idlers.flatMap(memoryFigures));
      figures.push(...(await watch(idlers, '')));
      await node.ask({ kind: 'probe' });
      figures.push(...(await watch(idlers.slice(0, 3), ', probed')));
    }
    for (const { name, unit, values } of figures) say(`${name}: ${values.join()} ${unit}`);
    return {
      figures,
      notes: [
        `Measured ${settleMs / 1000} s after the first token, for ${idleMs / 1000} s: wake-ups are the ` +
          'voluntary context switches of all threads; processor includes the tools that a process ran. "Probed" ' +
          'is with the probes of the manifests. The process `nmi-supervise` sleeps in a system call. Node ' +
          'and Go are the controls of the other scenarios, which answer with a constant.',
      ],
    };
  },
};

function idlersOf({ ready }: FabricNode, mode: string): readonly Idler[] {
  const { agentPid, redirectPid = 0, controlPid, goPid } = ready;
  return [
    { name: `${mode}, both containers`, pids: [agentPid, redirectPid] },
    { name: `${mode}, nmi`, pids: [agentPid] },
    { name: `${mode}, redirect`, pids: [redirectPid] },
    ...(mode === 'eBPF' ? [{ name: subjects.nodeHttp, pids: [controlPid] }] : []),
    ...(mode === 'eBPF' && goPid !== undefined ? [{ name: subjects.goHttp, pids: [goPid] }] : []),
  ];
}

async function watch(idlers: readonly Idler[], how: string): Promise<readonly Figure[]> {
  const look = () =>
    idlers.map(({ pids }) => [
      sumOf(pids, wakeUpsOf),
      (cpuMsOf(pids) ?? Number.NaN) + sumOf(pids, endedChildrenMsOf),
      sumOf(pids, endedChildrenMsOf),
    ]);
  const before = look();
  await delay(idleMs);
  const after = look();
  const kinds = [
    ['wake-ups', '1/s'],
    ['processor', 'ms/s'],
    ['of it tools', 'ms/s'],
  ] as const;
  return idlers.flatMap(({ name }, index) =>
    kinds.map(([what, unit], kind) => {
      const spent = (after[index]?.[kind] ?? 0) - (before[index]?.[kind] ?? 0);
      return figure(`${name}${how}: ${what}`, unit, spent / (idleMs / 1_000));
    }),
  );
}

function memoryFigures({ name, pids }: Idler): readonly Figure[] {
  const found = pids.map(memoryOf);
  return [
    figure(
      `${name}: resident`,
      'MB',
      sumOf(found, ({ rssMb }) => rssMb),
    ),
    figure(
      `${name}: proportional`,
      'MB',
      sumOf(found, ({ pssMb }) => pssMb),
    ),
    figure(
      `${name}: private`,
      'MB',
      sumOf(found, ({ privateMb }) => privateMb),
    ),
  ];
}

function figure(name: string, unit: string, value: number): Figure {
  return { name, unit, values: [Number(value.toPrecision(4))] };
}

function sumOf<T>(all: readonly T[], of: (one: T) => number): number {
  return all.reduce((sum, one) => sum + of(one), 0);
}
