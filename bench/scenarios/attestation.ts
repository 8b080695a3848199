import { findFabricObstacle } from '../../lab/fabric/fabric.ts';
import { openFabricNode } from '../fixture/fabric-node.ts';
import { measureRounds, shapes } from '../fixture/rounds.ts';
import type { Scenario } from './scenario.ts';

const without = 'no programs';

export const attestation: Scenario = {
  name: 'attestation',
  title: 'What the eBPF programs cost connections to other addresses',
  isQuick: false,
  run: async ({ options, executable, stack, say }) => {
    const obstacle = findFabricObstacle();
    if (obstacle !== undefined) return { notes: [`Left out: ${obstacle}.`] };
    const { agentFlags, rounds, roundMs } = options;
    const plan = { redirect: 'ebpf', executable, agentFlags, rival: undefined } as const;
    const node = await openFabricNode('attest', plan, stack);
    const series = await measureRounds({
      rounds,
      roundMs,
      say,
      shapes: [shapes.oneFresh, shapes.fresh],
      subjects: [node.control(without, 'outside'), node.control('programs attached', 'pod')],
    });
    return {
      control: without,
      series,
      notes: [
        'Subjects are a pod in a cgroup that the programs are attached to, and a process in the ' +
          'same network that is in none; both dial the bare control.',
      ],
    };
  },
};
