/** What is left of a pod that is gone: nothing, neither in the agent nor in what the kernel tracks. */
import assert from 'node:assert/strict';
import { eventually } from '../../world/eventually.ts';
import type { LabPod } from '../../pods/pod.ts';
import { succeed } from '../../world/node-view.ts';
import { assertRefused, assertToken } from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

/** Of one tracked connection: a pod's address and the port it dialled from. */
interface Flow {
  readonly ip: string;
  readonly port: number;
}

/** The agent waits 2 s before it resets; the rest is the machine's. */
const resetMs = 6_000;
/** The kernel forgets a connection 10 s after its reset. One that nobody resets it keeps for days. */
const forgetMs = 16_000;
const kept = { connection: 'kept' };
/** Of no other scenario: what the kernel remembers of an address is of these pods. */
const ips = ['10.244.0.211', '10.244.0.212', '10.244.0.213'] as const;

const gonePods: Scenario = {
  name: 'gone-pod-cut',
  title:
    'The connections of a deleted pod are reset and removed from conntrack; those of others stay.',
  needs: 'namespaces',
  inTour: false,
  run: async (world) => {
    world.bind('cut', 'cut');
    const [fallen, lingering, staying] = [
      await world.addPod({ name: 'fallen', binding: 'cut', ip: ips[0] }),
      await world.addPod({ name: 'lingering', binding: 'cut', ip: ips[1] }),
      await world.addPod({ name: 'staying', binding: 'cut', ip: ips[2] }),
    ];
    await world.untilAgentKnows();
    for (const pod of [fallen, lingering, staying]) assertToken(await pod.ask(kept), 'cut');
    const cut = [await readOpenFlow(world, fallen), await readOpenFlow(world, lingering)];
    const stays = await readOpenFlow(world, staying);
    // The link is deleted before the process ends: the agent gets no FIN of its peer.
    await succeedInPod(world, fallen, 'ip', 'link', 'set', 'eth0', 'down');
    await world.removePod(fallen);
    world.deletePodObject(lingering);
    await eventually(async () => {
      for (const flow of cut) {
        assert.notEqual(
          await readState(world, flow),
          'ESTABLISHED',
          `${flow.ip} is still connected`,
        );
      }
    }, resetMs);
    const reply = await lingering.ask(kept);
    assertRefused(reply, { status: 503, says: /^No running pod of this node/ });
    assert.equal(reply.wasReused, false, 'the connection of the pod that is gone was not reset');
    await eventually(async () => {
      for (const flow of cut) {
        const state = await readState(world, flow);
        assert.equal(state, undefined, `the kernel still has a connection of ${flow.ip}`);
      }
    }, forgetMs);
    const other = await staying.ask(kept);
    assertToken(other, 'cut');
    assert.ok(other.wasReused, 'the connection of a pod that is there was cut, too');
    assert.equal(await readState(world, stays), 'ESTABLISHED');
    return 'two connections reset and forgotten, that of a third pod goes on';
  },
};

export const gonePodScenarios: readonly Scenario[] = [gonePods];

/** What the kernel tracks of what this pod dialled, a line each. */
async function listFlows(world: World, ip: string): Promise<readonly string[]> {
  const listed = await succeed(world, 'cat', '/proc/net/nf_conntrack');
  // The first addresses of a line are those of who dialled.
  return listed.split('\n').filter((line) => / tcp .*? src=(\S+) /.exec(line)?.[1] === ip);
}

async function readOpenFlow(world: World, { ip }: LabPod): Promise<Flow> {
  const open = (await listFlows(world, ip)).filter((line) => line.includes(' ESTABLISHED '));
  const [line = '', ...more] = open;
  assert.deepEqual(more, [], `${ip} has more than one connection`);
  const port = Number(/ sport=(\d+)/.exec(line)?.[1]);
  assert.ok(port > 0, `the kernel tracks no connection of ${ip}`);
  return { ip, port };
}

/** What the kernel takes the connection to be in, or undefined when it knows of none. */
async function readState(world: World, { ip, port }: Flow): Promise<string | undefined> {
  const lines = await listFlows(world, ip);
  const line = lines.find((each) => / sport=(\d+)/.exec(each)?.[1] === String(port));
  return line === undefined ? undefined : / ([A-Z_]+) src=/.exec(line)?.[1];
}

async function succeedInPod(
  world: World,
  pod: LabPod,
  command: string,
  ...args: readonly string[]
): Promise<void> {
  const { code, stderr } = await world.ground.runInPod(pod.name, command, args);
  assert.equal(code, 0, `${command} ${args.join(' ')}: ${stderr}`);
}
