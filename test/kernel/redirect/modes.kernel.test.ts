/**
 * The requirements of every redirect mode, checked for each in the same words: the agent of a mode
 * that meets them can listen on the port.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import type { Log } from '../../../src/base/log.ts';
import { Reconciler } from '../../../src/nmi/kernel/reconciler.ts';
import type { Redirect } from '../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { whyNoBpfTests } from './cgroup-fixture.ts';
import { EbpfTestBed, type Client } from './ebpf-test-bed.ts';
import { inSlices, modesUnderTest, openCrowd, type Crowd } from './mode-test-bed.ts';
import {
  sweepDeadNamespaces,
  whyNoKernelTests,
  whyNoLegacyTables,
  type Script,
} from './namespaces.ts';

const skip =
  (await whyNoKernelTests('iptables-nft-save', 'iptables-legacy-save', 'nsenter', 'cc')) ||
  whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();
const hasLegacy = skip === false && (await whyNoLegacyTables()) === false;

const crowdSize = 200;
const dial = `dial ${defaultTarget.metadataIp} 80`;
const dialMapped = `dial ::ffff:${defaultTarget.metadataIp} 80`;
const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

describe('every redirect', { skip }, () => {
  let testBed: EbpfTestBed;
  let crowd: Crowd;
  let pod: Client;
  let otherPod: Client;
  let hostPod: Client;
  let pristine = '';

  before(async () => {
    testBed = await EbpfTestBed.open();
    crowd = await openCrowd(testBed, crowdSize);
    pod = testBed.client(testBed.podA, 'poda/c1');
    otherPod = testBed.client(testBed.podB, 'podb/c1');
    hostPod = testBed.client(testBed.node, 'podhost/c1');
    await testBed.startCloud();
    // Listing a table of legacy iptables creates it: create it before the state is recorded.
    for (const backend of hasLegacy ? ['nft', 'legacy'] : ['nft'])
      await testBed.node.run(`iptables-${backend} -t nat -S`);
    pristine = await nodeState();
  });
  after(async () => {
    await crowd[Symbol.asyncDispose]();
    await testBed.close();
  });

  /** Everything that a redirect could leave on the node. */
  async function nodeState(): Promise<string> {
    const saved = await Promise.all([
      testBed.node.run('iptables-nft-save -t nat'),
      hasLegacy ? testBed.node.run('iptables-legacy-save -t nat') : '',
      testBed.node.run('ip -4 rule'),
      testBed.node.run('ip -br link show nmi0').catch(() => 'no link'),
    ]);
    return [...saved.map(withoutCounters), ...readdirSync(testBed.bpf.path)].join('\n');
  }

  for (const mode of modesUnderTest) {
    describe(mode.name, () => {
      let redirect: Redirect;
      let agent: Script;

      before(async () => {
        redirect = mode.open(testBed);
        await redirect.prepare();
        agent = await testBed.startAgent();
        await redirect.install();
      });
      after(async () => {
        await agent.stop();
        await redirect.remove();
      });
      beforeEach(async () => {
        assert.equal((await redirect.install()).state, 'active');
      });

      const seesPod = (client: Client, ip: string) =>
        mode.attests
          ? new RegExp(`^agent sees ${ip} attested ${client.podId} `)
          : new RegExp(`^agent sees ${ip} `);

      it('redirects IPv4 and mapped sockets, and repeated requests on a connection', async () => {
        assert.match(await pod.send(dial), seesPod(pod, '10.244.0.5'));
        assert.match(await pod.send(dialMapped), seesPod(pod, '10.244.0.5'));
        for (const order of [`keep${dial.slice('dial'.length)}`, 'ask', 'ask']) {
          assert.match(await pod.send(order), seesPod(pod, '10.244.0.5'));
        }
        assert.equal(await pod.send('drop'), 'dropped');
      });

      it(`identifies each of ${crowdSize} pods`, async () => {
        const answers = await inSlices(crowd.pods, (each) => each.dial('tcp4'));
        const mapped = await inSlices(crowd.pods.slice(0, 20), (each) => each.dial('tcp6'));
        const wanted = crowd.pods.map(({ ip, cgroupId }) => {
          const why = 'no program of this version answers for the sockets of this process';
          const who = mode.attests ? `attested ${cgroupId}` : `unavailable - ${why}`;
          return `agent sees ${ip} ${who}`;
        });
        assert.deepEqual(answers, wanted);
        assert.deepEqual(mapped, wanted.slice(0, 20));
      });

      it('redirects pods on the host network where it can, and leaves them alone where not', async () => {
        assert.match(await hostPod.send(dial), mode.hostNetwork);
      });

      it('keeps pods with their own network from all other ports of that address', async () => {
        const { metadataIp } = defaultTarget;
        // The guard's answer to all routed packets.
        assert.equal(await pod.send(`dial ${metadataIp} 8080`), 'EHOSTUNREACH');
        assert.equal(await otherPod.send(`dial ::ffff:${metadataIp} 8080`), 'EHOSTUNREACH');
        // Sent once, and the kernel limits ICMP errors per source: from a pod that has had none
        // yet.
        const fresh = crowd.pods.at(-1 - modesUnderTest.indexOf(mode));
        assert.equal(await fresh?.dial('udp4'), 'EHOSTUNREACH');
        assert.match(await hostPod.send(`dial ${metadataIp} 8080`), /^cloud sees 10\.0\.0\.4/);
        const byUdp = await hostPod.send(`run ${testBed.dialler.path} udp4 ${metadataIp} 80`);
        assert.match(byUdp.replace(/.*(?:answer|error)=/, ''), /^cloud sees 10\.0\.0\.4/);
      });

      it('is idempotent, for another instance too, and reports what is there', async () => {
        for (const each of [redirect, mode.open(testBed), redirect]) {
          const status = await each.install();
          assert.deepEqual(status.changed, []);
          assert.deepEqual(status.problems, []);
          assert.deepEqual(await each.verify(), {
            state: 'active',
            detail: status.detail,
            problems: [],
            port: 2579,
          });
        }
      });

      it('is closed while the agent is down, and works again as soon as it is back', async () => {
        await agent.stop();
        assert.equal(await pod.send(dial), 'ECONNREFUSED');
        assert.equal(await pod.send(dialMapped), 'ECONNREFUSED');
        agent = await testBed.startAgent();
        assert.match(await pod.send(dial), seesPod(pod, '10.244.0.5'));
      });

      it('replaces another version under load, without a connection to the cloud', async () => {
        assert.equal(await pod.send('storm'), 'storming');
        for (let count = 0; count < 3; count += 1) {
          await mode.age(testBed);
          const broken = await mode.open(testBed).verify();
          assert.notDeepEqual(broken.problems, []);
          const repaired = await mode.open(testBed).install();
          assert.notDeepEqual(repaired.changed, []);
          assert.equal(repaired.state, 'active');
        }
        const seen = JSON.parse(await pod.send('calm')) as Record<string, number>;
        assert.ok((seen['agent'] ?? 0) > 0);
        assert.equal(seen['cloud'], undefined);
      });

      it('is installed again when its link is deleted', async () => {
        await testBed.node.run('ip link del nmi0');
        const broken = await redirect.verify();
        assert.match(broken.problems.join('; '), /link nmi0 missing/);
        assert.ok(broken.state === 'broken' || broken.state === 'absent', broken.state);
        const seen = await crowd.pods[0]?.dial('tcp4');
        assert.ok(seen !== undefined);
        assert.doesNotMatch(seen, /cloud/);
        assert.deepEqual((await redirect.install()).problems, []);
        assert.match(await pod.send(dial), seesPod(pod, '10.244.0.5'));
      });

      it('coexists with another instance: neither finds anything to repair', async () => {
        const keep = (each: Redirect) =>
          new Reconciler({
            redirect: each,
            intervalMs: 50,
            clock: systemClock,
            log: silent,
            listenPort: 2579,
            hasSlots: false,
            unrecordedCallers: 'by-link',
          });
        assert.equal(await pod.send('storm'), 'storming');
        {
          await using first = keep(redirect);
          await using second = keep(mode.open(testBed));
          await Promise.all([first.start(), second.start()]);
          await delay(700);
          await eventually(() => assert.ok(first.checks.unchanged >= 2), 30_000);
          await eventually(() => assert.ok(second.checks.unchanged >= 2), 30_000);
          for (const { checks } of [first, second]) {
            assert.deepEqual(checks, { ...checks, installed: 0, repaired: 0, failed: 0 });
          }
        }
        const seen = JSON.parse(await pod.send('calm')) as Record<string, number>;
        assert.deepEqual(Object.keys(seen), ['agent']);
        // When one instance stops, the other's redirect stays: only `remove` opens the node.
        assert.equal((await redirect.verify()).state, 'active');
      });

      it('opens the node again and leaves nothing of itself', async () => {
        await redirect.remove();
        assert.equal(await nodeState(), pristine);
        assert.match(await pod.send(dial), /^cloud sees /);
        assert.match(await pod.send(`dial ${defaultTarget.metadataIp} 8080`), /^cloud sees /);
        assert.match(await hostPod.send(dial), /^cloud sees /);
        assert.equal((await redirect.verify()).state, 'absent');
        await redirect.remove();
      });
    });
  }
});

function withoutCounters(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/\[\d+:\d+\]/, '[]'))
    .join('\n');
}
