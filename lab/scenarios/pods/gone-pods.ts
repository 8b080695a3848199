/** Nothing is left of a deleted pod, neither in the agent nor in conntrack. */
import assert from 'node:assert/strict';
import { eventually } from '../../test-bed/eventually.ts';
import type { LabPod } from '../../pods/pod.ts';
import { succeed } from '../../test-bed/node-view.ts';
import { assertRefused, assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

/** A tracked connection: a pod's address and source port. */
interface Flow {
  readonly ip: string;
  readonly port: number;
}

/** The agent waits 2s before the reset; the rest is slack for the machine. */
const resetMs = 6_000;
/** The kernel drops a connection's entry 10s after its reset; without a reset, after days. */
const forgetMs = 16_000;
const kept = { connection: 'kept' };
/** Used by no other scenario, so that conntrack entries of these addresses belong to these pods. */
const ips = ['10.244.0.211', '10.244.0.212', '10.244.0.213'] as const;

const gonePods: Scenario = {
  name: 'gone-pod-cut',
  title:
    'The connections of a deleted pod are reset and removed from conntrack; those of others stay.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('cut', 'cut');
    const [fallen, lingering, staying] = [
      await testBed.addPod({ name: 'fallen', binding: 'cut', ip: ips[0] }),
      await testBed.addPod({ name: 'lingering', binding: 'cut', ip: ips[1] }),
      await testBed.addPod({ name: 'staying', binding: 'cut', ip: ips[2] }),
    ];
    await testBed.untilAgentKnows();
    for (const pod of [fallen, lingering, staying]) assertToken(await pod.ask(kept), 'cut');
    const cut = [await readOpenFlow(testBed, fallen), await readOpenFlow(testBed, lingering)];
    const stays = await readOpenFlow(testBed, staying);
    // The link is deleted before the process ends: the agent gets no FIN from its peer.
    await succeedInPod(testBed, fallen, 'ip', 'link', 'set', 'eth0', 'down');
    await testBed.removePod(fallen);
    testBed.deletePodObject(lingering);
    await eventually(async () => {
      for (const flow of cut) {
        assert.notEqual(
          await readState(testBed, flow),
          'ESTABLISHED',
          `${flow.ip} is still connected`,
        );
      }
    }, resetMs);
    const reply = await lingering.ask(kept);
    assertRefused(reply, { status: 503, says: /^No running pod of this node/ });
    assert.equal(reply.wasReused, false, 'the connection of the deleted pod was not reset');
    await eventually(async () => {
      for (const flow of cut) {
        const state = await readState(testBed, flow);
        assert.equal(state, undefined, `the kernel still has a connection of ${flow.ip}`);
      }
    }, forgetMs);
    const other = await staying.ask(kept);
    assertToken(other, 'cut');
    assert.ok(other.wasReused, 'the connection of an existing pod was cut, too');
    assert.equal(await readState(testBed, stays), 'ESTABLISHED');
    return 'two connections reset and removed from conntrack; a third pod’s connection is kept';
  },
};

export const gonePodScenarios: readonly Scenario[] = [gonePods];

/** The conntrack entries of this pod's outgoing connections, one line each. */
async function listFlows(testBed: TestBed, ip: string): Promise<readonly string[]> {
  const listed = await succeed(testBed, 'cat', '/proc/net/nf_conntrack');
  // The first addresses of a line are the dialing side's.
  return listed.split('\n').filter((line) => / tcp .*? src=(\S+) /.exec(line)?.[1] === ip);
}

async function readOpenFlow(testBed: TestBed, { ip }: LabPod): Promise<Flow> {
  const open = (await listFlows(testBed, ip)).filter((line) => line.includes(' ESTABLISHED '));
  const [line = '', ...more] = open;
  assert.deepEqual(more, [], `${ip} has more than one connection`);
  const port = Number(/ sport=(\d+)/.exec(line)?.[1]);
  assert.ok(port > 0, `the kernel tracks no connection of ${ip}`);
  return { ip, port };
}

/** The connection's state in conntrack, or undefined without an entry. */
async function readState(testBed: TestBed, { ip, port }: Flow): Promise<string | undefined> {
  const lines = await listFlows(testBed, ip);
  const line = lines.find((each) => / sport=(\d+)/.exec(each)?.[1] === String(port));
  return line === undefined ? undefined : / ([A-Z_]+) src=/.exec(line)?.[1];
}

async function succeedInPod(
  testBed: TestBed,
  pod: LabPod,
  command: string,
  ...args: readonly string[]
): Promise<void> {
  const { code, stderr } = await testBed.environment.runInPod(pod.name, command, args);
  assert.equal(code, 0, `${command} ${args.join(' ')}: ${stderr}`);
}
