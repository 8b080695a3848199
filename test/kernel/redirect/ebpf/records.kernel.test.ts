/**
 * Records of callers: their owners, their limits, and what happens to a caller without a record.
 */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { cgroupIdOf } from '../../../../src/redirect/cgroup/cgroup-tree.ts';
import { nativeModule } from '../../../../src/redirect/native/addon.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp } = defaultTarget;
const dial = `dial ${metadataIp} 80`;
/** Records of one pod: at connect, and in all. */
const limit = 480;
const hardLimit = 640;
/** Longer than the burst of a pod takes at its rate. */
const paidMs = 600;

describe('the records of callers', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  let other: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    pod = testBed.client(testBed.podA, 'poda/c1');
    other = testBed.client(testBed.podB, 'podb/c1');
    await testBed.redirect().prepare();
    await testBed.startAgent();
  });
  after(() => testBed.close());
  beforeEach(async () => {
    await testBed.redirect().remove();
    await testBed.redirect().prepare();
    await testBed.redirect().install();
  });

  /** Dials this many times from each cgroup; the sockets stay open until "release". */
  const fill = (
    kind: string,
    each: number,
    cgroups: readonly string[],
    from = pod,
  ): Promise<string> =>
    from.send(
      ['hold', testBed.dialler.path, 'fill', kind, metadataIp, 80, each, ...cgroups].join(' '),
    );
  const counters = () => {
    const read = testBed.redirect().counters();
    assert.ok(read !== undefined);
    return read;
  };
  const attestedAs = ({ podId }: Client) => new RegExp(` attested ${podId} `);

  it('are limited per pod, which is then refused in connect, and are free again later', async () => {
    const expected = { attested: limit, EPERM: 100 };
    assert.deepEqual(JSON.parse(await pod.send(`flood ${limit + 100}`)), expected);
    assert.equal(counters().recorded, BigInt(limit));
    assert.equal(counters().refused, 100n);
    assert.equal(counters().unrecorded, 0n);
    assert.match(await other.send(dial), attestedAs(other));
    assert.equal(await pod.send('ebb'), 'ebbed');
    // All of its records are free again, and time has paid for its connects.
    await delay(paidMs);
    assert.deepEqual(JSON.parse(await pod.send(`flood ${limit}`)), { attested: limit });
    assert.equal(await pod.send('ebb'), 'ebbed');
  });

  for (const qosClass of ['burstable/', 'besteffort/', '']) {
    it(`leave room for others, whatever 64 containers of ${qosClass}poda dial on loopback`, async () => {
      const mine = `/kubepods/${qosClass}poda`;
      const neighbour = testBed.client(testBed.podB, `/kubepods/${qosClass}podn/c1`);
      await testBed.redirect().install();
      const containers = Array.from({ length: 64 }, (_, at) =>
        testBed.tree.make(`${mine}/x${at}/${at % 2 === 0 ? '' : 'made/by/itself'}`),
      );
      const filled = await fill('lo', 1024, containers);
      const seen = await neighbour.send(dial);
      assert.equal(await pod.send('release'), 'released');
      assert.match(seen, attestedAs(neighbour));
      assert.equal(filled, `made=${limit} refused=${64 * 1024 - limit} other=0`);
      await eventually(() => assert.equal(counters().deleted, counters().recorded));
      assert.match(await pod.send(dial), attestedAs(pod));
    });
  }

  it('are limited for a pod with sockets that send their first packet long after connect', async () => {
    const second = testBed.client(testBed.podA, 'poda/c2');
    assert.equal(await fill('late', 400, [pod.cgroup]), 'made=400 refused=0 other=0');
    await delay(paidMs);
    const filled = await fill('late', 400, [second.cgroup], second);
    assert.equal(filled, 'made=400 refused=0 other=0');
    assert.equal(counters().recorded, BigInt(hardLimit));
    assert.equal(counters().unrecorded, BigInt(800 - hardLimit));
    assert.match(await other.send(dial), attestedAs(other));
    // A caller that may be one of those without a record must retry; it is not refused permanently.
    const unseen = testBed.client(testBed.podB, '/system/unseen');
    assert.match(await unseen.send(dial), / unattested - this node had no room for a record/);
    assert.equal(await pod.send('release'), 'released');
    assert.equal(await second.send('release'), 'released');
  });

  it('are refused to a pod that connects too fast, whatever it closes, and to no other', async () => {
    // By a program in C, which is faster than the rate on a busy machine too.
    const dialAll = () => fill('lo', limit, [pod.cgroup]);
    assert.equal(await dialAll(), `made=${limit} refused=0 other=0`);
    assert.equal(await pod.send('release'), 'released');
    await eventually(() => assert.equal(counters().deleted, counters().recorded));
    const again = await dialAll();
    const [made = 0, refused = 0] = Array.from(again.matchAll(/\d+/g), Number);
    assert.equal(again, `made=${made} refused=${limit - made} other=0`);
    assert.ok(refused > 0, again);
    assert.equal(counters().tooFast, BigInt(refused));
    assert.match(await other.send(dial), attestedAs(other));
    assert.equal(await pod.send('release'), 'released');
    await delay(paidMs);
    assert.match(await pod.send(dial), attestedAs(pod));
  });

  it('are not counted for another pod when a pod at its limit dials from that pod’s address', async () => {
    const ip = '10.244.0.6';
    const kept = await other.send(`keep ${metadataIp} 80`);
    const port = Number(/ through (\d+) /.exec(kept)?.[1]);
    const load = (): bigint => {
      const native = nativeModule();
      const map = native.openPin(join(testBed.pinFolder, 'loads'), true);
      const podId = cgroupIdOf(join(other.cgroup, '..')) ?? 0n;
      const value = native.mapGet(map, new Uint8Array(new BigUint64Array([podId]).buffer));
      closeSync(map);
      assert.ok(value !== undefined);
      return new DataView(value.buffer).getBigInt64(0, true);
    };
    assert.equal(load(), 1n);
    assert.deepEqual(JSON.parse(await pod.send(`flood ${limit}`)), { attested: limit });
    await testBed.podA.run(`ip addr add ${ip}/32 dev lo`);
    assert.equal(await pod.send(`dial ${metadataIp} 80 ${ip} ${port}`), 'EPERM');
    assert.equal(load(), 1n);
    assert.match(await other.send('ask'), attestedAs(other));
    assert.equal(await other.send('drop'), 'dropped');
    await eventually(() => assert.equal(load(), 0n));
    assert.equal(await pod.send('ebb'), 'ebbed');
    await testBed.podA.run(`ip addr del ${ip}/32 dev lo`);
  });

  it('that a pod replaces from another pod’s address and deletes leave that pod a reason to retry', async () => {
    const ip = '10.244.0.6';
    const kept = await other.send(`keep ${metadataIp} 80`);
    const port = Number(/ through (\d+) /.exec(kept)?.[1]);
    assert.match(kept, attestedAs(other));
    assert.equal(counters().unrecorded, 0n);
    await testBed.podA.run(`ip addr add ${ip}/32 dev lo`);
    const twins = `twins ${ip} ${port} ${metadataIp} 80 lo lo`;
    assert.equal(await pod.send(`run ${testBed.dialler.path} ${twins}`), 'error=EADDRNOTAVAIL');
    await testBed.podA.run(`ip addr del ${ip}/32 dev lo`);
    assert.match(await other.send('ask'), / unattested - .*another pod/);
    assert.equal(counters().unrecorded, 1n);
    assert.equal(await other.send('drop'), 'dropped');
  });

  it('have none of a connect whose SYN waited for the redirect, and one of the next connect', async () => {
    // What made the 403 in a switch: the programs see a connect only when it begins, and netfilter sends
    // the SYN that is repeated to the agent.
    await testBed.redirect().remove();
    const drop = `FORWARD -d ${metadataIp} -j DROP`;
    await testBed.node.run(`iptables-nft -A ${drop}`);
    const early = pod.send(dial);
    await eventually(async () => {
      const dropped = await testBed.node.run('iptables-nft -nvxL FORWARD');
      assert.match(dropped, / [1-9]\d* +\d+ DROP /);
    });
    await testBed.redirect().prepare();
    await testBed.redirect().install();
    assert.match(await early, /^agent sees 10\.244\.0\.5 unattested /);
    assert.match(await pod.send(dial), attestedAs(pod));
    await testBed.node.run(`iptables-nft -D ${drop}`);
  });
});
