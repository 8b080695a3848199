/**
 * An agent of two processes, each as in its own container: `nmi redirect run`, and `nmi run` as an
 * unprivileged user on a read-only root.
 */
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { inCgroup } from '../../fabric/cgroups.ts';
import { withoutBpf } from '../../fabric/without-bpf.ts';
import type { AgentProcess } from '../../test-bed/agent-process.ts';
import { succeed, variableOf } from '../../test-bed/node-view.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const kernelPort = 8097;
const servingPort = 8096;
/** The user of the serving side. */
export const nobody = '65532';

/** The capabilities that the kernel's side needs in this test bed. */
export function kernelRights(testBed: TestBed): readonly string[] {
  return testBed.attests ? ['bpf', 'net_admin'] : ['net_admin'];
}

export async function openKernelSide(
  testBed: TestBed,
  uid: string,
  rights: readonly string[],
  variables: readonly string[] = [],
  built?: string,
): Promise<AgentProcess> {
  const set = ['-all', ...rights.map((right) => `+${right}`)].join(',');
  return testBed.environment.openAgent(
    kernelPort,
    await inContainer(testBed, uid, [
      ...withImage(testBed, built),
      ...['setpriv', '--pdeathsig', 'KILL', `--bounding-set=${set}`, '--inh-caps=-all'],
      ...['--no-new-privs', '--', 'env', `NMI_POD_UID=${uid}`, ...variables],
    ]),
    executablePath(testBed),
  );
}

export async function openServingSide(
  testBed: TestBed,
  uid: string,
  variables: readonly string[] = [],
  built?: string,
): Promise<AgentProcess> {
  const given = variables.find((each) => each.startsWith('NMI_SHARED_FOLDER='))?.split('=')[1];
  const shared = given ?? variableOf(testBed, 'NMI_SHARED_FOLDER');
  return testBed.environment.openAgent(
    servingPort,
    await inContainer(testBed, uid, [
      withoutBpf,
      ...withImage(testBed, built),
      ...['sh', '-c', 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'],
      // The folder that both containers share.
      shared,
      ...['setpriv', '--pdeathsig', 'KILL', `--reuid=${nobody}`, `--regid=${nobody}`],
      ...['--clear-groups', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs', '--'],
      ...['env', ...variables],
    ]),
    executablePath(testBed),
  );
}

export function kernelFlags(testBed: TestBed): readonly string[] {
  return [
    ...['redirect', 'run', ...testBed.environment.redirectFlags],
    ...['--ipt-update-interval-sec=1', '--iptables-backend=nft'],
    ...[`--http-probe-port=${kernelPort}`, `--prometheus-port=${kernelPort}`],
  ];
}

export function servingFlags(testBed: TestBed): readonly string[] {
  return [
    ...testBed.environment.agentFlags,
    ...['--redirect=pinned', '--ipt-update-interval-sec=1'],
    ...[`--http-probe-port=${servingPort}`, `--prometheus-port=${servingPort}`],
  ];
}

/**
 * The executable in the lab's folder, for the processes of this container alone: neither another user nor root without
 * CAP_DAC_OVERRIDE can reach it where it was built, if that is below a home of mode 700.
 */
function withImage(
  testBed: TestBed,
  built = testBed.environment.agentCommand[0],
): readonly string[] {
  const mount = ': >> "$1" && mount --bind "$0" "$1" && shift && exec "$@"';
  return ['unshare', '--mount', '--', 'sh', '-c', mount, built, executablePath(testBed)];
}

function executablePath(testBed: TestBed): string {
  return join(dirname(variableOf(testBed, 'KUBECONFIG')), 'nmi');
}

/**
 * In a container of the agent's own pod: its connections would be redirected if it were not exempt.
 * With iptables, connections from the node itself are not redirected, whatever their cgroup.
 */
async function inContainer(
  testBed: TestBed,
  uid: string,
  words: readonly string[],
): Promise<readonly string[]> {
  if (!testBed.attests) return words;
  const pod = `${variableOf(testBed, 'NMI_CGROUP_ROOT')}/kubepods/pod${uid}`;
  const folder = `${pod}/${randomBytes(32).toString('hex')}`;
  await succeed(testBed, 'mkdir', '-p', folder);
  return inCgroup(folder, words);
}
