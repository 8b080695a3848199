/** A real JVM: it makes IPv6 sockets and dials IPv4 addresses in their mapped form. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openIptablesRedirect } from '../../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const { metadataIp, metadataPort } = defaultTarget;
const source = join(import.meta.dirname, '../Dial.java');

/** Running a program from source needs the compiler too. */
const hasJava = ['java', 'javac'].every((name) => spawnSync(name, ['-version']).status === 0);
const skip =
  (await whyNoKernelTests('iptables-nft-save', 'nsenter')) ||
  whyNoBpfTests() ||
  (hasJava ? false : 'no java and javac on the PATH');
if (skip === false) await sweepDeadNamespaces();

describe('a Java machine in a pod', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    pod = testBed.client(testBed.podA, 'poda/c1');
    await testBed.startCloud();
    await testBed.redirect().prepare();
    await testBed.startAgent();
  });
  after(() => testBed.close());

  const dial = (...flags: readonly string[]) =>
    pod.send(['run', 'java', ...flags, source, metadataIp, metadataPort].join(' '));

  it('would reach the cloud: the test can see a leak', async () => {
    assert.match(await dial(), /^cloud sees 10\.244\.0\.5 to\/169\.254\.169\.254:80$/);
  });

  it('is redirected to the agent by eBPF with its cgroup, from a mapped socket and a plain one', async () => {
    const redirect = testBed.redirect();
    await redirect.install();
    const wanted = `agent sees 10.244.0.5 attested ${pod.podId} to/${metadataIp}:${metadataPort}`;
    const earlier = redirect.counters();
    assert.equal(await dial(), wanted);
    const mapped = redirect.counters();
    assert.equal(await dial('-Djava.net.preferIPv4Stack=true'), wanted);
    const plain = redirect.counters();
    assert.ok(earlier !== undefined && mapped !== undefined && plain !== undefined);
    assert.equal(mapped.redirectedMapped - earlier.redirectedMapped, 1n);
    assert.equal(plain.redirectedMapped - mapped.redirectedMapped, 0n);
    assert.equal(plain.redirected - mapped.redirected, 1n);
    await redirect.remove();
  });

  it('is redirected to the agent by iptables', async () => {
    const redirect = openIptablesRedirect({ host: testBed.node.host, backend: 'nft' });
    await redirect.install();
    assert.match(await dial(), /^agent sees 10\.244\.0\.5 .* to\/169\.254\.169\.254:80$/);
    await redirect.remove();
  });
});
