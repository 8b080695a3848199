/** The agent dials as a pod does, and notices that it is not where its rules say it is. */
import assert from 'node:assert/strict';
import { eventually } from '../../world/eventually.ts';
import { runRedirect, succeed } from '../../world/node-view.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

/** Wide enough for two dials that fail by their time, and a third that does not. */
const patienceMs = 20_000;
const rule = '-d 169.254.169.254/32 -p tcp -m tcp --dport 80';

interface Attack {
  readonly name: string;
  readonly says: RegExp;
  readonly act: (world: World) => Promise<unknown>;
  readonly undo: (world: World) => Promise<unknown>;
}

function command(line: string): (world: World) => Promise<string> {
  const [tool = '', ...args] = line.split(' ');
  return (world) => succeed(world, tool, ...args);
}

async function reinstall(world: World): Promise<void> {
  const { code, stderr } = await runRedirect(world, 'install');
  assert.equal(code, 0, stderr);
}

const onRules: readonly Attack[] = [
  {
    name: 'a stranger accepts above the redirect',
    says: /cannot be reached from a pod/,
    act: command(`iptables -t nat -I PREROUTING 1 ${rule} -j ACCEPT`),
    undo: command(`iptables -t nat -D PREROUTING ${rule} -j ACCEPT`),
  },
  {
    name: 'a stranger sends it to somebody else',
    says: /cannot be reached from a pod/,
    act: command(
      `iptables -t nat -I PREROUTING 1 ${rule.replace(' -m tcp', '')} -j DNAT --to-destination 169.254.25.79:9`,
    ),
    undo: command(
      `iptables -t nat -D PREROUTING ${rule.replace(' -m tcp', '')} -j DNAT --to-destination 169.254.25.79:9`,
    ),
  },
  {
    name: 'the link with the agent’s address is gone',
    says: /cannot be reached from a pod/,
    act: command('ip link del nmi0'),
    undo: reinstall,
  },
];

const onPrograms: readonly Attack[] = [
  {
    name: 'a stranger takes the links of the programs away',
    says: /somebody else answers at the metadata address \(status 404\)/,
    act: (world) => succeed(world, 'rm', `${pinFolder(world)}/link_connect4`),
    undo: reinstall,
  },
  {
    name: 'what files callers is gone',
    says: /without the programs’ record/,
    act: (world) => succeed(world, 'rm', `${pinFolder(world)}/link_sockops`),
    undo: reinstall,
  },
];

const selfTest: Scenario = {
  name: 'self-test',
  title:
    'The agent dials through the redirect itself: not ready as soon as somebody is in between.',
  needs: 'namespaces',
  inTour: false,
  // Nothing is mended meanwhile.
  agentFlags: ['--redirect-self-test-interval-sec=1', '--ipt-update-interval-sec=3600'],
  run: async (world) => {
    await untilResult(world, 'passed');
    const attacks = world.attests ? onPrograms : onRules;
    for (const { name, says, act, undo } of attacks) {
      world.tell(name);
      await act(world);
      await untilResult(world, 'failed');
      const page = await world.agent.page('readyz');
      assert.equal(page?.status, 503);
      assert.match(page.text, says);
      await undo(world);
      await untilResult(world, 'passed');
      assert.equal((await world.agent.page('readyz'))?.status, 200);
    }
    const told = world.agent.lines.filter((line) => line.includes('"msg":"redirect self-test"'));
    const results = told.map((line) => /"result":"(\w+)"/.exec(line)?.[1]);
    const wanted = attacks.flatMap(() => ['failed', 'passed']);
    assert.deepEqual(results.slice(-wanted.length - 1), ['passed', ...wanted]);
    return `${attacks.length} attacks seen, each told once, ready again after each`;
  },
};

export const selfTestScenarios: readonly Scenario[] = [selfTest];

async function untilResult(world: World, result: string): Promise<void> {
  const series = `nmi_redirect_self_test{result="${result}"}`;
  await eventually(async () => {
    assert.equal(await world.agent.metric(series), 1, `the self-test has not ${result}`);
  }, patienceMs);
}

function pinFolder(world: World): string {
  const flag = world.ground.redirectFlags.find((each) => each.startsWith('--bpf-pin-folder='));
  assert.ok(flag !== undefined);
  return flag.slice(flag.indexOf('=') + 1);
}
