import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { RedirectReport } from '../../../src/nmi/kernel/caller-frames.ts';
import { openCallerServer } from '../../../src/nmi/kernel/caller-server.ts';
import { openExternalRedirect } from '../../../src/nmi/kernel/external-redirect.ts';
import { mapLayout } from '../../../src/redirect/ebpf/settings.ts';
import type { Attestation, RedirectTarget } from '../../../src/redirect/redirect.ts';
import { HandClock } from '../../support/hand-clock.ts';

const target: RedirectTarget = {
  metadataIp: '169.254.169.254',
  metadataPort: 80,
  listenIp: '127.0.0.1',
  listenPort: 2579,
};
const peer = {
  remoteIp: '10.0.0.1',
  remotePort: 40_000,
  localIp: target.listenIp,
  localPort: target.listenPort,
};

let folder = '';
let made = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-test-external-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function open(t: TestContext, first: Partial<RedirectReport> = {}, wanted = target) {
  const path = join(folder, `${(made += 1)}.sock`);
  const side = {
    report: { mode: 'ebpf', isActive: true, layout: mapLayout, target, ...first } as RedirectReport,
    found: { kind: 'attested', cgroupId: 7n, isDirect: false } as Attestation,
    letThrough: [] as (readonly bigint[])[],
    reports: 0,
  };
  const listen = () =>
    openCallerServer({
      path,
      report: () => {
        side.reports += 1;
        return side.report;
      },
      lookUp: () => side.found,
      letThrough: (ids) => side.letThrough.push(ids),
    });
  let server = await listen();
  const clock = new HandClock();
  const redirect = openExternalRedirect({ path, target: wanted, clock });
  t.after(async () => {
    redirect.close?.();
    await server[Symbol.asyncDispose]();
  });
  return {
    side,
    redirect,
    stop: () => server[Symbol.asyncDispose](),
    restart: async () => (server = await listen()),
  };
}

describe('a redirect in another process', () => {
  it('has the mode of that process, and its callers', async (t) => {
    const { side, redirect } = await open(t);
    assert.equal(redirect.mode, 'pinned');
    assert.equal((await redirect.attest(peer)).kind, 'unavailable');
    assert.match(redirect.whyUnavailable?.() ?? '', /does not answer/);
    await redirect.prepare();
    assert.equal(redirect.mode, 'ebpf');
    assert.equal(redirect.whyUnavailable?.(), undefined);
    const status = await redirect.install();
    assert.deepEqual([status.state, status.problems], ['active', []]);
    assert.deepEqual(await redirect.attest(peer), side.found);
    side.found = { kind: 'unattested' };
    assert.deepEqual(await redirect.attest(peer), side.found);
    side.found = { kind: 'unavailable', why: 'of the other side' };
    assert.equal((await redirect.attest(peer)).kind, 'unavailable');
    assert.deepEqual(redirect.attest({ ...peer, localPort: 80 }), { kind: 'unattested' });
    await assert.rejects(redirect.remove(), { code: 'NOT_PERMITTED', step: 'remove redirect' });
  });

  it('tells that process which pods to let through, and the next one too', async (t) => {
    const { side, redirect, stop, restart } = await open(t);
    await redirect.letThrough?.([5n]);
    await redirect.prepare();
    /** The request before the second report has been answered then. */
    const told = async (): Promise<readonly bigint[] | undefined> => {
      await redirect.verify();
      await redirect.verify();
      return side.letThrough.splice(0).at(-1);
    };
    assert.deepEqual(await told(), [5n]);
    await redirect.letThrough?.([5n, 2n ** 63n]);
    assert.deepEqual(await told(), [5n, 2n ** 63n]);
    await redirect.letThrough?.([]);
    assert.deepEqual(await told(), []);
    await stop();
    await redirect.verify();
    await restart();
    assert.deepEqual(await told(), []);
  });

  it('identifies callers by address if that process uses iptables, without a look-up', async (t) => {
    const { redirect, stop } = await open(t, { mode: 'iptables' });
    await redirect.prepare();
    assert.equal(redirect.mode, 'iptables');
    assert.deepEqual(redirect.attest(peer), { kind: 'by-address' });
    assert.equal(redirect.whyUnavailable?.(), undefined);
    await stop();
    assert.equal((await redirect.verify()).state, 'absent');
    assert.deepEqual(redirect.attest(peer), { kind: 'by-address' });
  });

  it('is missing while that process is down, and no caller counts as unattested then', async (t) => {
    const { side, redirect, stop, restart } = await open(t);
    await redirect.prepare();
    await stop();
    const status = await redirect.verify();
    assert.equal(status.state, 'absent');
    assert.match(status.problems.join(), /^nmi redirect run does not answer at \//);
    assert.deepEqual(redirect.attest(peer), {
      kind: 'unavailable',
      why: '`nmi redirect run` does not answer',
    });
    await restart();
    assert.equal((await redirect.verify()).state, 'active');
    assert.deepEqual(await redirect.attest(peer), side.found);
  });

  const mismatches: readonly (readonly [Partial<RedirectReport>, RegExp])[] = [
    [{ mode: 'iptables' }, /by iptables now and was by ebpf: restart this pod/],
    [{ layout: mapLayout + 1 }, /of another version/],
    [
      { target: { ...target, listenPort: 2580 } },
      /redirects 169\.254\.169\.254:80 to 127\.0\.0\.1:2580/,
    ],
  ];
  for (const [change, says] of mismatches) {
    it(`refuses callers while the report of the process contains ${says.source}`, async (t) => {
      const { side, redirect } = await open(t);
      await redirect.prepare();
      const { report } = side;
      side.report = { ...report, ...change };
      const status = await redirect.verify();
      assert.equal(status.state, 'broken');
      assert.match(status.problems.join(), says);
      const attestation = await redirect.attest(peer);
      assert.ok(attestation.kind === 'unavailable');
      assert.match(attestation.why, says);
      assert.equal(redirect.whyUnavailable?.(), attestation.why);
      assert.equal(redirect.mode, 'ebpf');
      side.report = report;
      assert.equal((await redirect.verify()).state, 'active');
      assert.deepEqual(await redirect.attest(peer), side.found);
    });
  }

  it('does not accept look-ups after a start in iptables mode', async (t) => {
    const { side, redirect } = await open(t, { mode: 'iptables' });
    await redirect.prepare();
    side.report = { ...side.report, mode: 'ebpf' };
    assert.equal((await redirect.verify()).state, 'broken');
    assert.equal((await redirect.attest(peer)).kind, 'unavailable');
  });

  it('is not prepared before it is active, and gives up when the signal aborts', async (t) => {
    const { side, redirect } = await open(t, { isActive: false });
    const stop = new AbortController();
    let isPrepared = false;
    const preparing = redirect.prepare(stop.signal).then(() => (isPrepared = true));
    const status = await redirect.verify();
    assert.equal(status.state, 'absent');
    assert.match(status.problems.join(), /has not brought the redirect up/);
    assert.equal(redirect.mode, 'pinned');
    assert.equal(isPrepared, false);
    const [asked, beganMs] = [side.reports, performance.now()];
    await delay(300);
    const most = 1 + Math.ceil((performance.now() - beganMs) / 200);
    assert.ok(side.reports - asked <= most, 'it waits between its questions');
    stop.abort();
    await preparing;
    side.report = { ...side.report, isActive: true };
    await redirect.prepare();
    assert.equal(redirect.mode, 'ebpf');
  });

  it('is not prepared while the node does not have the address of the agent', async (t) => {
    const elsewhere = { ...target, listenIp: '192.0.2.1' };
    const { side, redirect } = await open(t, { target: elsewhere }, elsewhere);
    const stop = new AbortController();
    let isPrepared = false;
    const preparing = redirect.prepare(stop.signal).then(() => (isPrepared = true));
    while (side.reports < 2) await delay(20);
    assert.equal(isPrepared, false);
    assert.equal((await redirect.verify()).state, 'active');
    stop.abort();
    await preparing;
  });

  it('continues to look callers up while that process repairs the redirect', async (t) => {
    const { side, redirect } = await open(t);
    await redirect.prepare();
    side.report = { ...side.report, isActive: false };
    assert.equal((await redirect.verify()).state, 'broken');
    assert.deepEqual(await redirect.attest(peer), side.found);
  });
});
