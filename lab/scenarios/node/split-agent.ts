/**
 * An agent of two processes, each as in a container of its own: `nmi redirect run`, and `nmi run` as an
 * unprivileged user on a read-only root.
 */
import { randomBytes } from 'node:crypto';
import { inCgroup } from '../../fabric/cgroups.ts';
import { withoutBpf } from '../../fabric/without-bpf.ts';
import type { AgentProcess } from '../../world/agent-process.ts';
import { succeed, variableOf } from '../../world/node-view.ts';
import type { World } from '../../world/world.ts';

const kernelPort = 8097;
const servingPort = 8096;
/** The user of the serving side. */
export const nobody = '65532';

/** What the kernel's side needs in this world. */
export function kernelRights(world: World): readonly string[] {
  return world.attests ? ['bpf', 'net_admin'] : ['net_admin'];
}

export async function openKernelSide(
  world: World,
  uid: string,
  rights: readonly string[],
  variables: readonly string[] = [],
): Promise<AgentProcess> {
  const set = ['-all', ...rights.map((right) => `+${right}`)].join(',');
  return world.ground.openAgent(
    kernelPort,
    await inContainer(world, uid, [
      ...['setpriv', '--pdeathsig', 'KILL', `--bounding-set=${set}`, '--inh-caps=-all'],
      ...['--no-new-privs', '--', 'env', `NMI_POD_UID=${uid}`, ...variables],
    ]),
  );
}

export async function openServingSide(
  world: World,
  uid: string,
  variables: readonly string[] = [],
): Promise<AgentProcess> {
  return world.ground.openAgent(
    servingPort,
    await inContainer(world, uid, [
      ...[
        withoutBpf,
        'unshare',
        '--mount',
        '--',
        'sh',
        '-c',
        'mount -o remount,bind,ro / && exec "$@"',
        'sh',
      ],
      ...['setpriv', '--pdeathsig', 'KILL', `--reuid=${nobody}`, `--regid=${nobody}`],
      ...['--clear-groups', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs', '--'],
      ...['env', ...variables],
    ]),
  );
}

export function kernelFlags(world: World): readonly string[] {
  return [
    ...['redirect', 'run', ...world.ground.redirectFlags],
    ...['--ipt-update-interval-sec=1', '--iptables-backend=nft'],
    ...[`--http-probe-port=${kernelPort}`, `--prometheus-port=${kernelPort}`],
  ];
}

export function servingFlags(world: World): readonly string[] {
  return [
    ...world.ground.agentFlags,
    ...['--redirect=pinned', `--http-probe-port=${servingPort}`],
    `--prometheus-port=${servingPort}`,
  ];
}

/**
 * In a container of the agent's own pod: what it dials would be redirected, were it not exempt. By
 * iptables what the node itself dials is not, whatever cgroup it comes from.
 */
async function inContainer(
  world: World,
  uid: string,
  words: readonly string[],
): Promise<readonly string[]> {
  if (!world.attests) return words;
  const pod = `${variableOf(world, 'NMI_CGROUP_ROOT')}/kubepods/pod${uid}`;
  const folder = `${pod}/${randomBytes(32).toString('hex')}`;
  await succeed(world, 'mkdir', '-p', folder);
  return inCgroup(folder, words);
}
