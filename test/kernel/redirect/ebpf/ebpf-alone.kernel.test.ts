/** eBPF on a node without iptables: the programs redirect, and only the guard is behind them. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { missingTool, type Host, type ToolResult } from '../../../../src/redirect/host/command.ts';
import { openIptablesRedirect } from '../../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import type { EbpfRedirect } from '../../../../src/redirect/ebpf/ebpf.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';
import { refuse } from '../../../support/scripted-host.ts';

const skip = (await whyNoKernelTests()) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp } = defaultTarget;
const dial = `dial ${metadataIp} 80`;

/** What is behind the programs on a node whose tools end like this. */
function behind(iptables: (tool: string) => ToolResult | undefined, guard = true) {
  const { host } = testBed.node;
  const run: Host['run'] = (tool, args, options) => {
    const result = tool.startsWith('iptables') ? iptables(tool) : undefined;
    return result === undefined ? host.run(tool, args, options) : Promise.resolve(result);
  };
  return openIptablesRedirect({ host: { ...host, run }, isBehind: true, guard });
}

const missing = () => missingTool;

/** Without nft_compat: rules can be read but not written. */
const unwritable = (tool: string) =>
  tool === 'iptables-nft-restore'
    ? refuse(1, 'iptables-nft-restore: TABLE_ADD failed (Operation not supported): table nat')
    : undefined;

let testBed: EbpfTestBed;

describe('the eBPF redirect without iptables', { skip }, () => {
  let redirect: EbpfRedirect;
  let pod: Client;
  let host: Client;
  let untouched = '';

  const nodeState = async () =>
    (await Promise.all([testBed.node.run('ip -4 rule'), testBed.node.run('ip -br link')])).join(
      '\n',
    );

  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    pod = testBed.client(testBed.podA, 'poda/c1');
    host = testBed.client(testBed.node, '/system/kubelet');
    untouched = await nodeState();
    redirect = testBed.redirect({ fallback: behind(missing) });
    await redirect.prepare();
    await testBed.startAgent();
  });
  after(() => testBed.close());

  it('is installed with the guard behind it, and reports that there is no other fallback', async () => {
    assert.match(await pod.send(dial), /^cloud sees/, 'the test must be able to see a leak');
    const status = await redirect.install();
    assert.deepEqual(status.problems, []);
    assert.equal(status.state, 'active');
    for (const pref of [79, 80, 81, 82]) {
      assert.ok(status.changed?.includes(`guard rule ${pref} added`));
    }
    const said = /; guard on; no netfilter behind it: .*iptables-nft-save is missing/;
    assert.match(status.detail, said);
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
    assert.match(await host.send(dial), /^cloud sees 10\.0\.0\.4/);
    const again = await redirect.install();
    assert.deepEqual(again.changed, []);
  });

  it('verifies link and guard itself, and repairs them', async () => {
    assert.equal((await redirect.verify()).state, 'active');
    await testBed.node.run('ip rule del pref 80');
    const { state, problems } = await redirect.verify();
    assert.equal(state, 'broken');
    assert.deepEqual(problems, [`guard rule missing: pref 80 to ${metadataIp} prohibit`]);
    assert.deepEqual((await redirect.install()).changed, ['guard rule 80 added']);
    await testBed.node.run('ip link set nmi0 down');
    assert.deepEqual((await redirect.verify()).problems, ['link nmi0 is down']);
    assert.equal((await redirect.install()).state, 'active');
  });

  it('blocks hand-crafted packets: the guard drops them', async () => {
    const links = JSON.parse(await testBed.node.run('ip -j link show br0')) as readonly {
      readonly address: string;
    }[];
    const forge = (from: number) =>
      [
        `run ${testBed.dialler.path} forge eth0 10.244.0.77 ${from}`,
        `${links[0]?.address ?? ''} ${metadataIp} 80`,
      ].join(' ');
    await testBed.node.run(
      'ip neigh replace 10.244.0.77 lladdr 02:00:00:00:00:00 dev br0 nud permanent',
    );
    assert.doesNotMatch(await pod.send(forge(41_001)), /sees/);
    // Check that the guard does this: without its barrier the same packets and their replies pass.
    await testBed.node.run('ip rule del pref 80');
    await testBed.node.run('ip rule del pref 82');
    assert.match(await pod.send(forge(41_002)), /cloud sees 10\.244\.0\.77/);
    assert.equal((await redirect.install()).state, 'active');
  });

  it('fails closed when its programs are detached, and never leads to the cloud', async () => {
    await testBed.detach('connect4', 'connect6', 'sockops');
    assert.equal(await pod.send(dial), 'EHOSTUNREACH');
    assert.equal((await redirect.install()).state, 'active');
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
  });

  it('leaves nothing when it is removed, neither the guard nor the link', async () => {
    await redirect.remove();
    assert.equal(await nodeState(), untouched);
    assert.ok(!readdirSync(testBed.bpf.path).includes('nmi'));
    assert.match(await pod.send(dial), /^cloud sees 10\.244\.0\.5/);
    const status = await redirect.verify();
    assert.equal(status.state, 'absent');
    await redirect.remove();
  });

  it('is active where rules can be read but not written, with the guard behind it', async () => {
    const open = testBed.redirect({ fallback: behind(unwritable) });
    const status = await open.install();
    assert.deepEqual(status.problems, []);
    assert.match(status.detail, /; no netfilter behind it: write rules: .*TABLE_ADD failed/);
    assert.equal((await open.verify()).state, 'active');
    await testBed.node.run('ip rule del pref 80');
    assert.equal((await open.verify()).state, 'broken');
    assert.equal((await open.install()).state, 'active');
    await open.remove();
    await redirect.remove();
    assert.equal(await nodeState(), untouched);
  });

  it('has no guard where that is switched off', async () => {
    const open = testBed.redirect({ fallback: behind(missing, false) });
    const status = await open.install();
    assert.equal(status.state, 'active');
    assert.match(status.detail, /; guard off; no netfilter behind it: /);
    assert.doesNotMatch(await testBed.node.run('ip -4 rule'), /169\.254/);
    await open.remove();
  });
});
