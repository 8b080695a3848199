import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { subjects } from '../core/results.ts';
import { openFabricNode } from '../fixture/fabric-node.ts';
import { measureRounds, shapes } from '../fixture/rounds.ts';
import type { Scenario } from './scenario.ts';

export const redirects: Scenario = {
  name: 'redirects',
  title: 'From a pod in a network of its own: without a redirect, by iptables, by eBPF',
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const obstacle = findFabricObstacle();
    if (obstacle !== undefined) return { notes: [`Left out: ${obstacle}.`] };
    const { agentFlags, rounds, roundMs } = options;
    const open = (name: string, redirect: 'none' | 'iptables' | 'ebpf') =>
      openFabricNode(name, { redirect, executable, agentFlags, rival: undefined }, stack);
    const none = await open('none', 'none');
    const iptables = await open('ipt', 'iptables');
    const ebpf = await open('ebpf', 'ebpf');
    return {
      control: subjects.nodeHttp,
      series: await measureRounds({
        rounds,
        roundMs,
        say,
        shapes: [
          shapes.one,
          shapes.sixteen,
          shapes.sixtyFour,
          shapes.onePacedFresh,
          shapes.pacedFresh,
        ],
        subjects: [
          none.control(subjects.nodeHttp),
          none.goControl(subjects.goHttp),
          none.subject('no redirect'),
          iptables.subject('iptables'),
          ebpf.subject('eBPF'),
        ],
      }),
      notes: [
        'The controls are on the node without a redirect, dialled by its pod across its bridge at their ' +
          'own addresses: what a redirect costs is part of the ratios of iptables and eBPF.',
      ],
    };
  },
};
