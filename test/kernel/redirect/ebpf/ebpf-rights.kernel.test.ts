/** The capability that each step needs: programs run with these capabilities and no others. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { nativeFolder } from '../../../../scripts/native.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save', 'setpriv', 'nsenter')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp } = defaultTarget;
const nobody = 65532;

interface Rights {
  readonly uid: 0 | typeof nobody;
  /** In the notation of setpriv: `bpf,net_admin`. */
  readonly capabilities: readonly string[];
}

describe('the capabilities that the eBPF redirect needs', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  /** A copy of the code that every user can read, wherever this repository is. */
  let copy = '';

  before(async () => {
    copy = mkdtempSync(join(tmpdir(), 'nmi-test-code-'));
    chmodSync(copy, 0o755);
    for (const folder of ['src/redirect', 'src/base']) {
      cpSync(join(import.meta.dirname, '../../../..', folder), join(copy, folder), {
        recursive: true,
      });
    }
    cpSync(nativeFolder, join(copy, 'dist/native'), { recursive: true });
    testBed = await EbpfTestBed.open();
    pod = testBed.client(testBed.podA, 'poda/c1');
    await testBed.redirect().prepare();
    await testBed.startAgent();
  });
  after(async () => {
    await testBed.close();
    rmSync(copy, { recursive: true, force: true });
  });
  beforeEach(async () => {
    await testBed.redirect().remove();
    await testBed.redirect().prepare();
  });

  /** Runs a script in the node's namespace; it prints one line of JSON. */
  function run({ uid, capabilities }: Rights, script: string): unknown {
    const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',');
    const who = uid === 0 ? [] : ['--reuid=65532', '--regid=65532', '--clear-groups'];
    const child = spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${testBed.node.name}`, '--', 'setpriv', ...who],
        ...[`--bounding-set=${set}`, '--inh-caps=-all', '--no-new-privs', '--'],
        ...[process.execPath, '-e', script],
      ],
      { encoding: 'utf8', timeout: 60_000, cwd: '/' },
    );
    assert.equal(child.status, 0, child.stderr);
    return JSON.parse(child.stdout);
  }

  const load = (names: readonly string[]) =>
    `Promise.all(${JSON.stringify(names)}.map((name) => import('${copy}/src/redirect/' + name + '.ts')))`;

  /** An operation of the whole mode: its state, or the code of its error. */
  const operate = (operation: string) => `
    ${load(['ebpf/ebpf', 'iptables/iptables'])}.then(([{ openEbpfRedirect }, { openIptablesRedirect }]) =>
      openEbpfRedirect({
        cgroupRoot: '${testBed.tree.path}',
        ownCgroup: '${testBed.agentCgroup}',
        pinFolder: '${testBed.pinFolder}',
        fallback: openIptablesRedirect({ backend: 'nft', isBehind: true }),
      }).${operation}())
      .then((status) => status?.state ?? 'done', ({ code, step }) => ({ code, step }))
      .then((result) => console.log(JSON.stringify(result)));
  `;

  it('are BPF and NET_ADMIN, as uid 0 with nothing else, for everything', async () => {
    const rights: Rights = { uid: 0, capabilities: ['bpf', 'net_admin'] };
    assert.equal(run(rights, operate('install')), 'active');
    assert.equal(run(rights, operate('verify')), 'active');
    assert.match(await pod.send(`dial ${metadataIp} 80`), /attested/);
    assert.equal(run(rights, operate('install')), 'active');
    assert.equal(run(rights, operate('remove')), 'done');
    assert.equal((await testBed.redirect().verify()).state, 'absent');
  });

  it('are both needed to load: without one of them nothing is loaded, and the error reports it', async () => {
    for (const capability of ['net_admin', 'bpf']) {
      const result = run({ uid: 0, capabilities: [capability] }, operate('install'));
      assert.deepEqual(result, { code: 'NOT_PERMITTED', step: 'load' }, `only ${capability}`);
    }
    const status = await testBed.redirect().verify();
    assert.match(status.problems.join('; '), /no programs installed|connect4 not attached/);
  });

  it('are needed to read, change or remove any part of it', async () => {
    await testBed.redirect().install();
    const script = `
      ${load(['native/addon'])}.then(([{ nativeModule }]) => {
        const tried = (work) => {
          try { return work() ?? 'done'; } catch (error) { return error.code; }
        };
        const native = nativeModule();
        const pin = (name) => '${testBed.pinFolder}/' + name;
        console.log(JSON.stringify({
          uid: process.getuid(),
          capabilities: /^CapEff:\\s+(\\w+)$/m.exec(
            require('node:fs').readFileSync('/proc/self/status', 'utf8'))[1],
          read: tried(() => native.openPin(pin('callers'), true)),
          write: tried(() => native.openPin(pin('callers'), false)),
          exempt: tried(() => native.openPin(pin('exempt'), true)),
          unpin: tried(() => require('node:fs').unlinkSync(pin('callers'))),
        }));
      });
    `;
    assert.deepEqual(run({ uid: nobody, capabilities: [] }, script), {
      uid: nobody,
      capabilities: '0000000000000000',
      read: 'EACCES',
      write: 'EACCES',
      exempt: 'EACCES',
      unpin: 'EACCES',
      // Not "unsupported": without the capabilities the probe cannot determine that.
    });
  });

  it('are not needed to find the cgroups of pods', () => {
    const script = `
      ${load(['cgroup/cgroup-index', 'cgroup/cgroup-tree'])}.then(([{ CgroupIndex }, { findPodsRoot }]) => {
        const index = new CgroupIndex(() => findPodsRoot('${testBed.tree.path}'), { monotonicMs: () => 0 });
        console.log(JSON.stringify(index.resolve(${pod.podId}n, ['a']) ?? null));
      });
    `;
    assert.equal(run({ uid: nobody, capabilities: [] }, script), 'a');
  });
});
