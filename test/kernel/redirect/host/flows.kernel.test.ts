/** Older connections are cut through the program's own netlink code. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp } = defaultTarget;

describe('an installation by a process in the node', { skip }, () => {
  let testBed: EbpfTestBed;

  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    await testBed.node.run('iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT');
  });
  after(async () => {
    await testBed.close();
  });

  it('cuts connections that a pod opened before, and not those of the node', async () => {
    const pod = testBed.client(testBed.podA, 'poda/c1');
    const host = testBed.client(testBed.node, '/system/kubelet');
    assert.match(await pod.send(`keep ${metadataIp} 80`), /^cloud/);
    assert.match(await host.send(`keep ${metadataIp} 80`), /^cloud/);
    const source = join(import.meta.dirname, '../../../../src/redirect');
    const installer = testBed.node.start(`
      process.stdin.resume();
      import('${source}/iptables/iptables.ts')
        .then(({ openIptablesRedirect }) => openIptablesRedirect({ backend: 'nft' }).install())
        .then((status) => console.log(JSON.stringify(status)));
    `);
    const status = JSON.parse(await installer.line()) as { readonly changed: readonly string[] };
    assert.ok(status.changed.includes('1 older flows cut'), JSON.stringify(status));
    assert.equal(await pod.send('ask'), 'ECONNRESET');
    assert.match(await host.send('ask'), /^cloud/);
  });
});
