/** From one redirect mode to another, on a node where the previous mode has left its objects. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { systemClock } from '../../../src/base/time/clock.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { replacePrograms } from '../../../src/redirect/ebpf/stale-programs.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { whyNoBpfTests } from './cgroup-fixture.ts';
import { EbpfTestBed, type Client } from './ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from './namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save', 'nsenter', 'setpriv')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const main = join(import.meta.dirname, '../../../src/main.ts');
const { metadataIp } = defaultTarget;
const dial = `dial ${metadataIp} 80`;
const all = 'net_admin,+bpf,+net_raw';

describe('a node that was redirected by eBPF', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  /** The cgroup of the next agent: not the one that the previous agent exempted. */
  let next: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    pod = testBed.client(testBed.podA, 'poda/c1');
    next = testBed.client(testBed.node, 'podnext/c1');
    await testBed.redirect().prepare();
    await testBed.startAgent();
  });
  after(() => testBed.close());
  beforeEach(async () => {
    await testBed.redirect().prepare();
    assert.equal((await testBed.redirect().install()).state, 'active');
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
  });
  afterEach(async () => {
    assert.equal(nmi(all, 'remove', '--redirect=ebpf').status, 0);
  });

  /** Runs `nmi redirect` on that node, in the agent's cgroup, as uid 0 with only these capabilities. */
  function nmi(capabilities: string, action: string, ...flags: readonly string[]) {
    const bounding = capabilities === '' ? '-all' : `-all,+${capabilities}`;
    const run = spawnSync(
      'sh',
      [
        ...['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', testBed.agentCgroup, 'nsenter'],
        ...[`--net=/run/netns/${testBed.node.name}`, '--', 'setpriv', `--bounding-set=${bounding}`],
        ...['--inh-caps=-all', '--', process.execPath, main, 'redirect', action],
        ...['--iptables-backend=nft', ...flags],
      ],
      {
        encoding: 'utf8',
        timeout: 60_000,
        env: {
          ...process.env,
          NMI_BPF_PIN_FOLDER: testBed.pinFolder,
          NMI_CGROUP_ROOT: testBed.tree.path,
        },
      },
    );
    return { ...run, said: `${run.stdout}${run.stderr}` };
  }

  it('switches to iptables under load, without a connection to the cloud', async () => {
    assert.equal(await pod.send('storm'), 'storming');
    const behind = openIptablesRedirect({ host: testBed.node.host, backend: 'nft' });
    const redirect = replacePrograms(behind, testBed.pinFolder, systemClock);
    const found = await redirect.verify();
    assert.equal(found.state, 'broken');
    const [pinned, limit, ...others] = found.problems.toReversed();
    assert.equal(pinned, `programs of the eBPF mode are pinned in ${testBed.pinFolder}`);
    assert.match(limit ?? '', /^rule missing: -d 169\.254\.25\.79\/32 .* -m hashlimit /);
    assert.deepEqual(others, []);
    const status = await redirect.install();
    assert.equal(status.state, 'active');
    assert.deepEqual(status.changed, [
      'chain nmi-metadata rewritten',
      'programs of the eBPF mode taken away',
    ]);
    assert.deepEqual(await redirect.verify(), { ...found, state: 'active', problems: [] });
    const seen = await pod.send('calm');
    assert.deepEqual(Object.keys(JSON.parse(seen) as object), ['agent'], seen);
    assert.ok(!existsSync(testBed.pinFolder));
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 unavailable/);
    assert.match(await next.send(dial), /^cloud sees 10\.0\.0\.4/);
  });

  it('switches to iptables with the capabilities of that mode, and back', async () => {
    assert.match(await next.send(dial), /^agent sees/, 'the trap must be there');
    const over = nmi('net_admin', 'install', '--redirect=iptables');
    assert.equal(over.status, 0, over.said);
    assert.match(over.said, /changed: programs of the eBPF mode taken away\n/);
    assert.match(await next.send(dial), /^cloud sees 10\.0\.0\.4/);
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 unavailable/);
    const back = nmi(all, 'install', '--redirect=ebpf');
    assert.equal(back.status, 0, back.said);
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
  });

  it('switches when auto finds that it may no longer load programs', async () => {
    const over = nmi('net_admin', 'install');
    assert.equal(over.status, 0, over.said);
    assert.match(
      over.said,
      /^iptables: active .*\n  why this one: no eBPF: bpf\(2\) is not permitted/,
    );
    assert.match(await next.send(dial), /^cloud sees 10\.0\.0\.4/);
  });

  it('stays closed, and reports it, where the programs cannot be removed', async () => {
    execFileSync('mount', ['-o', 'remount,ro', testBed.bpf.path]);
    try {
      const over = nmi('net_admin', 'install', '--redirect=iptables');
      assert.equal(over.status, 1, over.said);
      assert.match(
        over.said,
        /^iptables: broken .*\n.*\n  changed: chain nmi-metadata rewritten\n  problem: programs of .* pinned in .*EROFS/,
      );
      assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
    } finally {
      execFileSync('mount', ['-o', 'remount,rw', testBed.bpf.path]);
    }
  });

  it('is left unchanged by --redirect=none, which reports the programs', async () => {
    const pins = readdirSync(testBed.pinFolder);
    for (const action of ['verify', 'install']) {
      const none = nmi('', action, '--redirect=none');
      assert.equal(none.status, 1, none.said);
      assert.match(
        none.said,
        /problem: programs of the eBPF mode are pinned in .*: nmi redirect remove/,
      );
    }
    assert.deepEqual(readdirSync(testBed.pinFolder), pins);
    assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
  });

  it('is opened completely without a flag for the mode, whatever this process could install itself', async () => {
    for (const [capabilities, ...flags] of [
      [all],
      ['net_admin'],
      [all, '--redirect=none'],
      [all, '--redirect=ebpf'],
      ['net_admin', '--redirect=iptables'],
    ] as const) {
      await testBed.redirect().prepare();
      assert.equal((await testBed.redirect().install()).state, 'active');
      const removed = nmi(capabilities, 'remove', ...flags);
      assert.equal(removed.said, 'removed: pods reach the real metadata endpoint again\n');
      assert.equal(removed.status, 0);
      assert.ok(!existsSync(testBed.pinFolder), `${capabilities} ${flags.join()}`);
      // The kernel detaches unpinned programs with a delay.
      await eventually(async () => {
        assert.match(await pod.send(dial), /^cloud sees/);
      });
    }
  });

  it('is not reported as open where the programs stay', async () => {
    execFileSync('mount', ['-o', 'remount,ro', testBed.bpf.path]);
    try {
      for (const flag of ['--redirect=iptables', '--redirect=auto', '--redirect=none']) {
        const removed = nmi('net_admin', 'remove', flag);
        assert.notEqual(removed.status, 0, removed.said);
        assert.match(removed.said, /^nmi redirect: .*(?:EROFS|Read-only file system)/);
        if (flag !== '--redirect=iptables') continue;
        assert.match(await pod.send(dial), /^agent sees 10\.244\.0\.5 attested/);
      }
      assert.notEqual(readdirSync(testBed.pinFolder).length, 0);
    } finally {
      execFileSync('mount', ['-o', 'remount,rw', testBed.bpf.path]);
    }
  });

  it('is verified by a command that takes the paths from its environment', async () => {
    const found = nmi(all, 'verify');
    assert.match(found.said, /^ebpf: active .*\n  why this one: the kernel has eBPF/);
    assert.equal(found.status, 0);
    assert.equal(nmi(all, 'remove').status, 0);
    assert.ok(!existsSync(testBed.pinFolder));
  });
});
