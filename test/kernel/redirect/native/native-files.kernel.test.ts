/** The executable and its addon: an addon can only be loaded from a file. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, linkSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freshExecutable } from '../../../../scripts/build.ts';
import { nativeFolder } from '../../../../scripts/native.ts';
import {
  openBpfFolder,
  openCgroupTree,
  whyNoBpfTests,
  type BpfFolder,
  type CgroupTree,
} from '../cgroup-fixture.ts';
import { whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save', 'unshare')) || whyNoBpfTests();

describe('the executable', { skip }, () => {
  let tree: CgroupTree;
  let bpf: BpfFolder;
  let folder = '';
  let nmi = '';

  before(async () => {
    const built = await freshExecutable();
    tree = openCgroupTree();
    tree.make('kubepods');
    bpf = openBpfFolder();
    // Beside the original, so that a hard link can replace a copy.
    folder = mkdtempSync(join(built, '../.test-'));
    nmi = join(folder, 'nmi');
    linkSync(built, nmi);
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
    tree.close();
    bpf.close();
  });

  /** The mode that `auto` chooses if the writable folders are mounted with only these options. */
  function chosen(mountOptions: string): string {
    const mounts = ['/run', '/dev/shm'].map(
      (path) => `mount -t tmpfs -o ${mountOptions} x ${path}`,
    );
    const command = [...mounts, 'exec "$0" redirect verify --redirect=auto "$@"'].join(' && ');
    const run = spawnSync('unshare', ['--net', '--mount', 'sh', '-c', command, nmi], {
      encoding: 'utf8',
      timeout: 60_000,
      env: {
        PATH: process.env['PATH'],
        TMPDIR: '/run',
        NMI_CGROUP_ROOT: tree.path,
        NMI_BPF_PIN_FOLDER: join(bpf.path, 'nmi'),
      },
    });
    assert.equal(run.stderr, '');
    return run.stdout.split(':')[0] ?? '';
  }

  it('loads its addon through any writable folder', () => {
    assert.equal(chosen('mode=755'), 'ebpf');
  });

  it('cannot load it where nothing may be executed or written, and works without eBPF', () => {
    assert.equal(chosen('noexec'), 'iptables');
    assert.equal(chosen('ro'), 'iptables');
  });

  it('needs no folder when a copy lies beside it, and accepts no other file as the addon', () => {
    const beside = join(folder, 'nmi.node');
    copyFileSync(join(nativeFolder, 'nmi.node'), beside);
    assert.equal(chosen('ro'), 'ebpf');
    writeFileSync(beside, 'another');
    assert.equal(chosen('ro'), 'iptables');
    rmSync(beside);
  });
});
