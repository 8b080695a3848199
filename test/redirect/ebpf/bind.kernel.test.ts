/** Who may listen where pods are brought, while the agent does not. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cgroupIdOf } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { replacePrograms } from '../../../src/redirect/ebpf/stale-programs.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';
import { whyNoBpfTests, whyNoNode } from '../cgroup-ground.ts';
import { EbpfWorld, type Client } from '../ebpf-world.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests() || whyNoNode();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = DEFAULT_TARGET;

describe('the address and port of the agent, while it is away', { skip }, () => {
  let world: EbpfWorld;
  let pod: Client;
  let host: Client;
  let agent: Client;
  let outsider: Client;

  before(async () => {
    world = await EbpfWorld.open();
    pod = world.client(world.podA, 'poda/c1');
    host = world.client(world.node, 'podhost/c1');
    agent = world.client(world.node, 'podagent/c1');
    outsider = world.client(world.node, '/system/daemon');
    world.settings = { exemptCgroupIds: [cgroupIdOf(join(agent.cgroup, '..')) ?? 0n] };
    await world.redirect().prepare();
    await world.redirect().install();
  });
  after(() => world.close());

  /** Listens, for a moment. */
  async function listen(client: Client, ip: string, port = listenPort, by = 'tcp') {
    const said = await client.tell(`hold ${world.dialler.path} bind ${by} ${ip} ${port}`);
    assert.equal(await client.tell('release'), 'released');
    return said;
  }

  for (const ip of [listenIp, '0.0.0.0', '::', `::ffff:${listenIp}`, '::ffff:0.0.0.0']) {
    it(`cannot be had at ${ip} by a pod on the host network, but by the agent`, async () => {
      assert.equal(await listen(host, ip), 'error=EPERM');
      assert.equal(await listen(host, ip, listenPort, 'mptcp'), 'error=EPERM');
      assert.equal(await listen(agent, ip), 'listening');
    });
  }

  it('give no answer of somebody else to a pod', async () => {
    const said = await host.tell(`hold ${world.dialler.path} bind tcp 0.0.0.0 ${listenPort}`);
    const answer = await pod.tell(`dial ${metadataIp} 80`);
    assert.equal(await host.tell('release'), 'released');
    assert.equal(answer, 'ECONNREFUSED', said);
  });

  it('are free in a namespace of a pod, at other ports and addresses, and for what is no pod', async () => {
    assert.equal(await listen(pod, '0.0.0.0'), 'listening');
    assert.equal(await listen(pod, '::'), 'listening');
    assert.equal(await listen(host, '0.0.0.0', listenPort + 1), 'listening');
    assert.equal(await listen(host, '127.0.0.1'), 'listening');
    assert.equal(await listen(outsider, '0.0.0.0'), 'listening');
  });

  it('are free for an agent that goes over to iptables, as soon as it prepares', async () => {
    const iptables = openIptablesRedirect({ host: world.node.host, backend: 'nft' });
    await replacePrograms(iptables, world.pinFolder).prepare();
    assert.equal(await listen(host, listenIp), 'listening');
    await world.redirect().install();
    assert.equal(await listen(host, listenIp), 'error=EPERM');
  });

  it('are kept by programs that are read back, mended and removed like the others', async () => {
    for (const hook of ['bind4', 'bind6']) {
      nativeModule().detach(join(world.pinFolder, `link_${hook}`));
      const { problems } = await world.redirect().verify();
      assert.deepEqual(problems, [`program ${hook} detached, its cgroup is gone`]);
      assert.deepEqual((await world.redirect().install()).problems, []);
    }
    assert.equal(await listen(host, listenIp), 'error=EPERM');
    await world.redirect().remove();
    assert.equal(await listen(host, '0.0.0.0'), 'listening');
  });
});
