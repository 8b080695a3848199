/** Two processes in place of one: who touches the kernel answers nobody, who answers has no right. */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { AgentProcess } from '../../world/agent-process.ts';
import { eventually } from '../../world/eventually.ts';
import { inCgroup } from '../../fabric/cgroups.ts';
import { makeBare, succeed, variableOf } from '../../world/node-view.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  untilToken,
} from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

const kernelPort = 8097;
const servingPort = 8096;
const nobody = '65532';
/** The numbers of these two in `linux/capability.h`. */
const rightsOfKernelSide = (1n << 12n) | (1n << 39n);

const privilegeSplit: Scenario = {
  name: 'privilege-split',
  title:
    'With `nmi redirect run` beside it the agent runs as nobody, without a capability, on a read-only root.',
  needs: 'namespaces',
  inTour: false,
  run: async (world) => {
    if (!world.attests) return 'nothing is pinned in this mode';
    world.bind('split', 'split');
    const pod = await world.addPod({ name: 'app', binding: 'split' });
    const plain = await world.addPod({ name: 'plain' });
    await makeBare(world);
    const uid = randomUUID();
    for (const missing of ['bpf', 'net_admin']) await assertNeeded(world, uid, missing);

    await using kernel = await openKernelSide(world, uid, ['bpf', 'net_admin']);
    // The serving side comes first here, and waits for its address.
    await using serving = await openServingSide(world, uid);
    serving.launch(servingFlags(world));
    kernel.launch(kernelFlags(world));
    await kernel.untilReady();
    await serving.untilReady();
    assertRights(kernel, '0', rightsOfKernelSide);
    assertRights(serving, nobody, 0n);
    assert.match(mountsOf(serving), /^\d+ \d+ \S+ \S+ \/ ro[ ,]/m, 'the root can be written to');
    await untilToken(pod, 'split');
    const redirected = await kernel.metric('nmi_ebpf_connects_total{outcome="redirected"}');
    assert.ok(redirected > 0, 'the kernel’s side does not count');
    assertRefused(await plain.ask(), { status: 400, says: /pod default\/plain has no label/ });

    world.tell('a stranger takes a program away, the kernel’s side puts it back');
    const before = await kernel.metric('nmi_redirect_installs_total{outcome="repaired"}');
    await succeed(world, 'rm', `${variableOf(world, 'NMI_BPF_PIN_FOLDER')}/link_connect4`);
    await eventually(async () => {
      const now = await kernel.metric('nmi_redirect_installs_total{outcome="repaired"}');
      assert.ok(now > before, `nothing was repaired: ${kernel.lines.slice(-3).join(' ')}`);
    });
    assertToken(await pod.ask(), 'split');

    world.tell('the kernel’s side is killed: nothing changes');
    await kernel.kill();
    assertToken(await pod.ask(), 'split');
    world.tell('the serving side is killed: closed');
    await serving.kill();
    assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
    assert.deepEqual(world.uncheckedRequests(), []);
    assertUpstream(world, ['split']);
    return 'BPF and NET_ADMIN on one side, each needed; nothing on the other; closed without both';
  },
};

export const privilegeSplitScenarios: readonly Scenario[] = [privilegeSplit];

/** With one right less nothing is installed, and the log says why. */
async function assertNeeded(world: World, uid: string, missing: string): Promise<void> {
  const rights = ['bpf', 'net_admin'].filter((right) => right !== missing);
  await using kernel = await openKernelSide(world, uid, rights);
  kernel.launch(kernelFlags(world));
  const step = missing === 'bpf' ? /NOT_PERMITTED: load: / : /NOT_PERMITTED: read rules: /;
  await eventually(() => {
    assert.ok(
      kernel.lines.some((line) => step.test(line)),
      `without ${missing} it does not say that it may not: ${kernel.lines.slice(-3).join('\n')}`,
    );
  }, 10_000);
  assert.equal((await kernel.page('readyz'))?.status, 503);
}

async function openKernelSide(
  world: World,
  uid: string,
  rights: readonly string[],
): Promise<AgentProcess> {
  const set = ['-all', ...rights.map((right) => `+${right}`)].join(',');
  return world.ground.openAgent(
    kernelPort,
    inCgroup(await makeContainer(world, uid), [
      ...['setpriv', '--pdeathsig', 'KILL', `--bounding-set=${set}`, '--inh-caps=-all'],
      ...['--no-new-privs', '--', 'env', `NMI_POD_UID=${uid}`],
    ]),
  );
}

async function openServingSide(world: World, uid: string): Promise<AgentProcess> {
  return world.ground.openAgent(
    servingPort,
    inCgroup(await makeContainer(world, uid), [
      ...['unshare', '--mount', '--', 'sh', '-c', 'mount -o remount,bind,ro / && exec "$@"', 'sh'],
      ...['setpriv', '--pdeathsig', 'KILL', `--reuid=${nobody}`, `--regid=${nobody}`],
      ...['--clear-groups', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs', '--'],
    ]),
  );
}

function kernelFlags(world: World): readonly string[] {
  return [
    ...['redirect', 'run', ...world.ground.redirectFlags],
    ...['--ipt-update-interval-sec=1', '--iptables-backend=nft'],
    ...[`--http-probe-port=${kernelPort}`, `--prometheus-port=${kernelPort}`],
  ];
}

function servingFlags(world: World): readonly string[] {
  return [
    ...world.ground.agentFlags,
    ...['--redirect=pinned', `--http-probe-port=${servingPort}`],
    `--prometheus-port=${servingPort}`,
  ];
}

/** A container of the agent's own pod: what it dials would be redirected, were it not exempt. */
async function makeContainer(world: World, uid: string): Promise<string> {
  const pod = `${variableOf(world, 'NMI_CGROUP_ROOT')}/kubepods/pod${uid}`;
  const folder = `${pod}/${randomBytes(32).toString('hex')}`;
  await succeed(world, 'mkdir', '-p', folder);
  return folder;
}

function assertRights({ pid = 0 }: AgentProcess, uid: string, rights: bigint): void {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const valueOf = (name: string) => new RegExp(`^${name}:\\s+(\\w+)`, 'm').exec(status)?.[1] ?? '';
  assert.equal(valueOf('Uid'), uid);
  for (const set of ['CapEff', 'CapPrm', 'CapBnd']) {
    assert.equal(BigInt(`0x${valueOf(set)}`), rights, set);
  }
  assert.equal(valueOf('NoNewPrivs'), '1');
}

function mountsOf({ pid = 0 }: AgentProcess): string {
  return readFileSync(`/proc/${pid}/mountinfo`, 'latin1');
}
