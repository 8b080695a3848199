import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { defaultTarget } from '../../src/redirect/target.ts';
import { behindRedirect, subjects } from '../core/results.ts';
import { controlCaller, controlCommand } from '../fixture/controls.ts';
import { openFabricNode } from '../fixture/fabric-node.ts';
import { measureRounds, shapes, type Subject } from '../fixture/rounds.ts';
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
    /** The control in the agent's place. */
    const openBehind = async (redirect: 'iptables' | 'ebpf', way: string): Promise<Subject> => {
      const { listenIp, listenPort } = defaultTarget;
      const install = `${executable} redirect install --redirect=${redirect} >&2`;
      const server = controlCommand(subjects.nodeHttp)?.join(' ') ?? '';
      const serve = `exec ${server} ${listenIp} ${listenPort} ${none.ready.bodyBytes}`;
      const rival = { name: subjects.nodeHttp, command: `sh -c '${install} && ${serve}'` };
      const plan = { redirect, executable, agentFlags, rival };
      const node = await openFabricNode(`b${redirect}`, plan, stack);
      return { ...node.subject(behindRedirect(way)), callers: [controlCaller] };
    };
    const behind = [await openBehind('iptables', 'iptables'), await openBehind('ebpf', 'eBPF')];
    const common = { rounds, roundMs, say };
    const servers = [
      none.control(subjects.nodeHttp),
      none.goControl(subjects.goHttp),
      none.subject('no redirect'),
      iptables.subject('iptables'),
      ebpf.subject('eBPF'),
    ];
    return {
      control: subjects.nodeHttp,
      series: [
        ...(await measureRounds({
          ...common,
          shapes: [shapes.one, shapes.sixteen, shapes.sixtyFour],
          subjects: servers,
        })),
        ...(await measureRounds({
          ...common,
          shapes: [shapes.onePacedFresh, shapes.pacedFresh],
          subjects: [...servers, ...behind],
        })),
      ],
      notes: [
        'The control of the ratios and Go are on the node without a redirect, dialled by its pod across its bridge at their ' +
          'own addresses: what a redirect costs is part of the ratios of iptables and eBPF. "Behind" one, the control is in ' +
          "the agent's place.",
      ],
    };
  },
};
