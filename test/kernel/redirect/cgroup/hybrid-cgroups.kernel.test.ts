/**
 * A node with cgroups of versions 1 and 2: the root of neither is the folder given to the agent.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

describe('the eBPF redirect on a node with both versions of cgroups', { skip }, () => {
  let testBed: EbpfTestBed;
  let folder = '';

  before(async () => {
    testBed = await EbpfTestBed.open();
    folder = mkdtempSync(join(tmpdir(), 'nmi-test-hybrid-'));
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder]);
    for (const name of ['memory', 'unified']) mkdirSync(join(folder, name));
    execFileSync('mount', ['--bind', testBed.tree.path, join(folder, 'unified')]);
  });
  after(async () => {
    execFileSync('umount', ['--recursive', folder]);
    rmdirSync(folder);
    await testBed.close();
  });

  it('finds the tree of version 2 below the folder', async () => {
    await testBed.startCloud();
    const pod = testBed.client(testBed.podA, 'poda/c1');
    const redirect = testBed.redirect({ cgroupRoot: folder });
    await redirect.prepare();
    const status = await redirect.install();
    assert.deepEqual(status.problems, []);
    assert.match(status.detail, new RegExp(`^eBPF on ${folder}/unified/kubepods;`));
    await testBed.startAgent();
    const answer = await pod.send(`dial ${defaultTarget.metadataIp} 80`);
    assert.match(answer, new RegExp(`^agent sees 10\\.244\\.0\\.5 attested ${pod.podId} `));
  });

  it('reports what is missing where there is none', async () => {
    const named = join(folder, 'memory');
    await assert.rejects(testBed.redirect({ cgroupRoot: named }).install(), {
      code: 'UNSUPPORTED',
      message: `find cgroups: no cgroup2 tree is at ${named} or mounted below it`,
    });
  });
});
