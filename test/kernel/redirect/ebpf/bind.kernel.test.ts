/** Who may listen on the address to which pods are redirected, while the agent does not. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { cgroupIdOf } from '../../../../src/redirect/cgroup/cgroup-tree.ts';
import { replacePrograms } from '../../../../src/redirect/ebpf/stale-programs.ts';
import { openIptablesRedirect } from '../../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests, whyNoNode } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests, whyNoMptcp } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests() || whyNoNode();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = defaultTarget;

describe('the address and port of the agent, while it is away', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  let host: Client;
  let agent: Client;
  let outsider: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    pod = testBed.client(testBed.podA, 'poda/c1');
    host = testBed.client(testBed.node, 'podhost/c1');
    agent = testBed.client(testBed.node, 'podagent/c1');
    outsider = testBed.client(testBed.node, '/system/daemon');
    testBed.settings = { otherAgents: () => [cgroupIdOf(join(agent.cgroup, '..')) ?? 0n] };
    await testBed.redirect().prepare();
    await testBed.redirect().install();
  });
  after(() => testBed.close());

  /** Listens for a moment. */
  async function listen(client: Client, ip: string, port = listenPort, by = 'tcp') {
    const said = await client.send(`hold ${testBed.dialler.path} bind ${by} ${ip} ${port}`);
    assert.equal(await client.send('release'), 'released');
    return said;
  }

  for (const ip of [listenIp, '0.0.0.0', '::', `::ffff:${listenIp}`, '::ffff:0.0.0.0']) {
    it(`cannot be bound at ${ip} by a pod on the host network, only by the agent`, async () => {
      for (const port of [listenPort, listenPort + 1]) {
        assert.equal(await listen(host, ip, port), 'error=EPERM');
        assert.equal(await listen(agent, ip, port), 'listening');
      }
    });

    it(`cannot be bound at ${ip} by MPTCP either`, { skip: whyNoMptcp() }, async () => {
      assert.equal(await listen(host, ip, listenPort, 'mptcp'), 'error=EPERM');
    });
  }

  it('never let another process answer a pod', async () => {
    const said = await host.send(`hold ${testBed.dialler.path} bind tcp 0.0.0.0 ${listenPort}`);
    const answer = await pod.send(`dial ${metadataIp} 80`);
    assert.equal(await host.send('release'), 'released');
    assert.equal(answer, 'ECONNREFUSED', said);
  });

  it('are free in a pod’s namespace, at other ports and addresses, and for processes outside pods', async () => {
    assert.equal(await listen(pod, '0.0.0.0'), 'listening');
    assert.equal(await listen(pod, '::'), 'listening');
    assert.equal(await listen(host, '0.0.0.0', listenPort + 2), 'listening');
    assert.equal(await listen(host, '127.0.0.1'), 'listening');
    assert.equal(await listen(outsider, '0.0.0.0'), 'listening');
  });

  it('are free for an agent that switches to iptables, as soon as it prepares', async () => {
    const iptables = openIptablesRedirect({ host: testBed.node.host, backend: 'nft' });
    await replacePrograms(iptables, testBed.pinFolder, systemClock).prepare();
    assert.equal(await listen(host, listenIp), 'listening');
    await testBed.redirect().install();
    assert.equal(await listen(host, listenIp), 'error=EPERM');
  });

  it('are kept by programs that are read back, repaired and removed like the others', async () => {
    for (const hook of ['bind4', 'bind6']) {
      await testBed.detach(hook);
      const { problems } = await testBed.redirect().verify();
      assert.deepEqual(problems, [`program ${hook} not attached`]);
      assert.deepEqual((await testBed.redirect().install()).problems, []);
    }
    assert.equal(await listen(host, listenIp), 'error=EPERM');
    await testBed.redirect().remove();
    assert.equal(await listen(host, '0.0.0.0'), 'listening');
  });
});
