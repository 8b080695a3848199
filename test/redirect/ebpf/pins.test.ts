import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  ensurePinFolder,
  findPinObstacle,
  isBpffs,
  listPins,
  promotePin,
  removePinFolder,
  unpin,
} from '../../../src/redirect/ebpf/pins.ts';
import { pretendFileSystem, refusal, replaceFs } from '../../support/replaced-fs.ts';
import { ok, refuse, scripted } from '../scripted-host.ts';

let work = '';
beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'nmi-pins-'));
});
afterEach(() => {
  rmSync(work, { recursive: true });
});

describe('the BPF file system', () => {
  it('is recognized by its type', () => {
    using bpffs = pretendFileSystem('bpf');
    assert.ok(isBpffs(bpffs.path));
    assert.ok(!isBpffs(work) && !isBpffs(join(work, 'nothing')));
  });

  it('is mounted above the folder where there is none, and nowhere over something', async () => {
    const host = scripted({ mount: () => ok() });
    const above = join(work, 'bpf');
    mkdirSync(above);
    await ensurePinFolder(host, join(above, 'nmi'));
    assert.deepEqual(host.log, [`mount -t bpf -o nosuid,nodev,noexec,mode=711 bpf ${above}`]);
    assert.deepEqual(readdirSync(above), ['nmi']);
    const before = { code: 'CONFLICT', message: /nor an empty folder to mount one at$/ };
    await assert.rejects(ensurePinFolder(host, join(above, 'nmi')), before);
    const nowhere = { code: 'CONFLICT', message: /nor a folder to mount one at: ENOENT$/ };
    await assert.rejects(ensurePinFolder(host, join(work, 'none/nmi')), nowhere);
    assert.equal(host.log.length, 1);
  });

  it('is not mounted where that is refused', async () => {
    const host = scripted({ mount: () => refuse(32, 'mount: permission denied') });
    const above = join(work, 'bpf');
    mkdirSync(above);
    await assert.rejects(ensurePinFolder(host, join(above, 'nmi')), { step: 'BPF file system' });
    assert.deepEqual(readdirSync(above), []);
  });

  it('is used as it is, with a folder of ours made once', async () => {
    using bpffs = pretendFileSystem('bpf');
    const host = scripted({});
    const folder = join(bpffs.path, 'nmi');
    await ensurePinFolder(host, folder);
    await ensurePinFolder(host, folder);
    assert.deepEqual([readdirSync(bpffs.path), host.log], [['nmi'], []]);
    const tooLong = join(bpffs.path, 'x'.repeat(256));
    await assert.rejects(ensurePinFolder(host, tooLong), { code: 'KERNEL_REFUSED' });
  });
});

describe('the obstacle to pinning', () => {
  it('is none where a folder can be made, which is removed again', () => {
    using bpffs = pretendFileSystem('bpf');
    assert.equal(findPinObstacle(join(bpffs.path, 'nmi')), undefined);
    assert.deepEqual(readdirSync(bpffs.path), []);
  });

  it('is a folder that is missing, or that is not empty', () => {
    assert.equal(
      findPinObstacle(join(work, 'none/nmi')),
      `no BPF file system at ${work}/none, nor a folder to mount one at: ENOENT`,
    );
    writeFileSync(join(work, 'file'), '');
    const full = findPinObstacle(join(work, 'nmi'));
    assert.match(full ?? '', /nor an empty folder to mount one at$/);
  });

  it('is a refusal, named by its code', () => {
    using bpffs = pretendFileSystem('bpf');
    assert.equal(
      findPinObstacle(join(bpffs.path, 'x'.repeat(256))),
      `nothing can be pinned in ${bpffs.path}: ENAMETOOLONG`,
    );
    for (const code of ['EACCES', 'EPERM', 'EROFS']) {
      using _refusing = replaceFs({
        mkdirSync: () => {
          throw refusal(code);
        },
      });
      assert.equal(
        findPinObstacle(join(bpffs.path, 'nmi')),
        `nothing can be pinned in ${bpffs.path}: ${code}`,
      );
    }
  });

  it('is the missing capability to mount a BPF file system where there is none', () => {
    const above = join(work, 'bpf');
    mkdirSync(above);
    const withCapabilities = (effective: string) =>
      replaceFs({
        readFileSync: ((path: string) => {
          assert.equal(path, '/proc/self/status');
          return `CapPrm:\tffffffffffffffff\nCapEff:\t${effective}\nCapBnd:\tffffffffffffffff\n`;
        }) as never,
      });
    {
      using _able = withCapabilities('0000000000200000');
      assert.equal(findPinObstacle(join(above, 'nmi')), undefined);
    }
    {
      using _unable = withCapabilities('ffffffffffdfffff');
      assert.equal(
        findPinObstacle(join(above, 'nmi')),
        `no BPF file system at ${above}, nor CAP_SYS_ADMIN to mount one`,
      );
    }
  });
});

describe('pins', () => {
  it('are listed by name, and none in a missing folder', () => {
    writeFileSync(join(work, 'callers'), '');
    assert.deepEqual(listPins(work), ['callers']);
    assert.deepEqual(listPins(join(work, 'none')), []);
    assert.throws(() => listPins(join(work, 'callers')), { code: 'KERNEL_REFUSED' });
  });

  it('are removed once', () => {
    writeFileSync(join(work, 'callers'), '');
    assert.deepEqual([unpin(work, 'callers'), unpin(work, 'callers')], [true, false]);
    mkdirSync(join(work, 'folder'));
    assert.throws(() => unpin(work, 'folder'), { name: 'RedirectError' });
  });

  it('replace the previous ones in one step', () => {
    writeFileSync(join(work, 'settings'), 'old');
    writeFileSync(join(work, 'next_settings'), 'new!');
    promotePin(work, 'settings');
    assert.deepEqual(readdirSync(work), ['settings']);
    assert.equal(statSync(join(work, 'settings')).size, 4);
    assert.throws(() => promotePin(work, 'settings'), { code: 'BUSY' });
    writeFileSync(join(work, 'next_link'), '');
    mkdirSync(join(work, 'link'));
    assert.throws(() => promotePin(work, 'link'), { code: 'KERNEL_REFUSED' });
  });

  it('that may not be touched are reported as missing permission', () => {
    for (const code of ['EPERM', 'EACCES', 'EROFS', 'EIO']) {
      const refuseAll = (): never => {
        throw refusal(code);
      };
      using _refusing = replaceFs({
        readdirSync: refuseAll,
        unlinkSync: refuseAll,
        renameSync: refuseAll,
        chmodSync: refuseAll,
        rmdirSync: refuseAll,
      });
      const expected = {
        code: code === 'EIO' ? 'KERNEL_REFUSED' : 'NOT_PERMITTED',
        message: `BPF file system: ${code}: refused`,
      };
      assert.throws(() => listPins(work), expected);
      assert.throws(() => unpin(work, 'callers'), expected);
      assert.throws(() => promotePin(work, 'callers'), expected);
      assert.throws(() => removePinFolder(work), expected);
    }
  });

  it('leave an empty folder, which is removed, or one with a pin of another owner, which is kept', () => {
    const folder = join(work, 'nmi');
    mkdirSync(folder);
    writeFileSync(join(folder, 'other'), '');
    removePinFolder(folder);
    assert.deepEqual(readdirSync(folder), ['other']);
    unpin(folder, 'other');
    removePinFolder(folder);
    removePinFolder(folder);
    assert.deepEqual(readdirSync(work), []);
  });
});
