/** Excepted pods that go straight to the real service: they alone, and only while they are excepted. */
import assert from 'node:assert/strict';
import { eventually } from '../../world/eventually.ts';
import type { LabPod } from '../../pods/pod.ts';
import { runRedirect } from '../../world/node-view.ts';
import { assertRefused, assertToken, untilRefused } from '../../world/reply-checks.ts';
import type { Scenario } from '../../world/scenario.ts';
import type { World } from '../../world/world.ts';

const flags = ['--excepted-pods=direct'];

const exceptedDirect: Scenario = {
  name: 'excepted-direct',
  title:
    'With --excepted-pods=direct an excepted pod goes straight, whoever looks like it does not, and it ends with the exception.',
  needs: 'namespaces',
  inTour: false,
  run: async (world) => {
    if (!world.attests)
      return 'only the kernel’s word tells such a pod from a forger: refused as a flag';
    await world.reset(flags);
    world.addException('infra', { app: 'infra' });
    const labels = { app: 'infra' };
    const infra = await world.addPod({ name: 'infra', labels, excepted: true });
    const onHost = await world.addPod({
      ...{ name: 'on-host', labels, excepted: true, hostNetwork: true },
    });
    const plain = await world.addPod({ name: 'plain', labels: { app: 'web' } });
    const thief = await world.addPod({ name: 'thief' });
    await world.untilAgentKnows();
    const allowed = world.imds.allowFrom(infra.ip);
    await untilStraight(world, infra);
    assertToken(await infra.ask({ host: '::ffff:169.254.169.254' }), 'node');
    assertToken(await onHost.ask(), 'node');
    assertRefused(await plain.ask(), { status: 400, says: /pod default\/plain has no label/ });
    assert.ok((await world.agent.metric('nmi_ebpf_connects_total{outcome="straight"}')) >= 2);

    world.tell('the agent is killed, and started again: nothing changes for the excepted pod');
    assertToken(await infra.ask({ connection: 'kept' }), 'node');
    await world.agent.kill();
    await assertStraight(world, infra, {});
    assert.equal((await plain.ask()).failure, 'ECONNREFUSED');
    await world.startAgent();
    await world.untilAgentKnows();
    await assertStraight(world, infra, { connection: 'kept' });
    await assertStraight(world, infra, {});
    const verified = await runRedirect(world, 'verify', flags);
    assert.equal(verified.code, 0, verified.stdout);
    assert.match(verified.stdout, /excepted pods go straight/);

    world.tell('a process in its network, and not in its cgroup, asks as the excepted pod');
    assertToken(await onHost.ask({ connection: 'kept' }), 'node');
    const before = countFrom(world, infra);
    {
      await using outsider = await world.ground.openOutsider('infra');
      const answer = await outsider.request({
        method: 'GET',
        target: '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://r.example',
        headers: ['Metadata', 'true'],
        connection: 'new',
        timeoutMs: 5_000,
      });
      assert.ok(answer.outcome === 'answered');
      assert.equal(answer.status, 403, answer.body);
    }

    world.tell('its exception is deleted');
    world.deleteObject('AzurePodIdentityException', 'infra');
    await world.untilAgentKnows();
    const refusal = { status: 400, says: /^Identity not found: / };
    const cut = await infra.ask({ connection: 'kept', timeoutMs: 3_000 });
    assert.equal(cut.identity, undefined, 'its connection goes on');
    await eventually(async () => {
      const { failure, wasReused } = await onHost.ask({ connection: 'kept', timeoutMs: 3_000 });
      assert.ok(failure !== undefined || !wasReused, 'its connection goes on');
    });
    await untilRefused(infra, refusal);
    assertRefused(await infra.ask({ connection: 'kept' }), refusal);
    assert.equal(countFrom(world, infra), before, 'something went straight afterwards');

    world.tell(`it is excepted again, and the thief takes its address ${infra.ip} over`);
    world.addException('again', labels);
    await untilStraight(world, infra);
    allowed[Symbol.dispose]();
    await takeOver(world, infra, thief);
    assertRefused(await thief.ask({ from: infra.ip }), { status: 503, says: /^No running pod/ });
    return 'straight for the excepted pods, the agent’s answer for their neighbour, their forgers, and after the exception';
  },
};

export const exceptedDirectScenarios: readonly Scenario[] = [exceptedDirect];

/** Requests of the pod that the real service saw by themselves. */
function countFrom(world: World, pod: LabPod): number {
  return world.uncheckedRequests().filter(({ from }) => from === pod.ip).length;
}

async function assertStraight(
  world: World,
  pod: LabPod,
  options: { readonly connection?: string },
): Promise<void> {
  const before = countFrom(world, pod);
  assertToken(await pod.ask(options), 'node');
  assert.equal(countFrom(world, pod), before + 1, 'it was relayed');
}

/** It is relayed until the agent has told the kernel. */
function untilStraight(world: World, pod: LabPod): Promise<void> {
  return eventually(() => assertStraight(world, pod, {}));
}

/** The thief answers for the address on the bridge, as ARP lets whoever may send raw frames. */
async function takeOver(world: World, victim: LabPod, thief: LabPod): Promise<void> {
  for (const [pod, line] of [
    [victim, 'ip link set eth0 down'],
    [thief, `ip addr add ${victim.ip}/24 dev eth0`],
  ] as const) {
    const [tool = '', ...args] = line.split(' ');
    const { code, stderr } = await world.ground.runInPod(pod.name, tool, args);
    assert.equal(code, 0, `${line}: ${stderr}`);
  }
  await world.ground.runInNode('ip', ['neigh', 'flush', 'to', victim.ip]);
}
