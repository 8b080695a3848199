import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { CgroupIndex } from '../../../src/redirect/cgroup/cgroup-index.ts';
import {
  cgroupIdOf,
  findCgroupRoot,
  findPodsRoot,
  listPodCgroups,
  ownCgroupId,
  parseCgroupMounts,
  resolveCgroupRoot,
} from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { parsePodCgroup, podCgroupPaths } from '../../../src/redirect/cgroup/cgroup.ts';

const uid = '0f7e2b1a-9c44-4d1e-8a53-3b1c2d4e5f60';
const escaped = uid.replaceAll('-', '_');
const id = 'a1b2c3d4e5f6'.repeat(6).slice(0, 64);

describe('the path of a cgroup below the root of pods', () => {
  const rows: readonly (readonly [path: string, containerId: string | undefined])[] = [
    [`kubepods-burstable.slice/kubepods-burstable-pod${escaped}.slice`, undefined],
    [
      `kubepods-burstable.slice/kubepods-burstable-pod${escaped}.slice/cri-containerd-${id}.scope`,
      id,
    ],
    [`kubepods-besteffort.slice/kubepods-besteffort-pod${escaped}.slice/crio-${id}.scope`, id],
    [`kubepods-pod${escaped}.slice/docker-${id}.scope`, id],
    [`kubepods-pod${escaped}.slice/crio-conmon-${id}.scope`, id],
    [`kubelet-kubepods-pod${escaped}.slice/cri-containerd-${id}.scope/init.scope`, id],
    [
      `kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${escaped}.slice/cri-containerd-${id}.scope`,
      id,
    ],
    [`burstable/pod${uid}/${id}`, id],
    [`besteffort/pod${uid}/${id}/nested/deeper`, id],
    [`pod${uid}/${id}`, id],
    [`pod${uid}/something`, undefined],
  ];
  for (const [path, containerId] of rows) {
    it(`names the pod: ${path.replace(id, 'ID').replace(uid, 'UID').replace(escaped, 'U_ID')}`, () => {
      assert.deepEqual(parsePodCgroup(path), { podUid: uid, containerId });
    });
  }

  it('names a static pod by the hash that the kubelet knows it by', () => {
    const hash = '9d2f'.repeat(8);
    assert.equal(parsePodCgroup(`burstable/pod${hash}/${id}`)?.podUid, hash);
  });

  it('names nothing for what is no pod', () => {
    for (const path of [
      '',
      'burstable',
      'kubepods-burstable.slice',
      'system.slice/ssh.service',
      `other/pod${uid}`,
      `burstable/besteffort/pod${uid}`,
      `burstable/kubepods-pod${escaped}`,
      `burstable/pod../${id}`,
      `burstable/pod`,
    ]) {
      assert.equal(parsePodCgroup(path), undefined, path);
    }
  });

  it('names the outermost pod: one below it may have made any name', () => {
    const victim = uid.replace('0f7e', 'dead');
    for (const inner of [
      `pod${victim}`,
      `kubepods/burstable/pod${victim}/${id}`,
      `kubepods.slice/kubepods-pod${victim.replaceAll('-', '_')}.slice`,
    ]) {
      assert.equal(parsePodCgroup(`burstable/pod${uid}/${id}/${inner}`)?.podUid, uid, inner);
    }
  });

  it('is where the kubelet would make it, for both drivers and every prefix', () => {
    fc.assert(
      fc.property(
        fc.uuid(),
        fc.constantFrom(
          'kubepods',
          'kubepods.slice',
          'kubelet-kubepods.slice',
          'a-b-kubepods.slice',
        ),
        (podUid, root) => {
          const paths = podCgroupPaths(root, podUid);
          assert.equal(paths.length, 3);
          for (const path of paths) assert.deepEqual(parsePodCgroup(path)?.podUid, podUid);
        },
      ),
    );
  });

  it('is none for a UID that could lead somewhere else', () => {
    for (const strange of ['', '..', '../../x', 'a/b', 'A', '-a', 'a\n', 'x'.repeat(64)]) {
      assert.deepEqual(podCgroupPaths('kubepods', strange), [], strange);
    }
  });

  it('never throws, whatever it is', () => {
    fc.assert(fc.property(fc.string(), (path) => void parsePodCgroup(path)));
  });
});

describe('the mounts of the cgroup2 tree', () => {
  const hybrid = [
    '24 1 0:21 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw',
    '25 24 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory',
    '26 24 0:23 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw',
  ].join('\n');
  const container = [
    '40 1 0:30 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw',
    '41 1 0:30 /../../../.. /host/sys/fs/cgroup\\040x ro - cgroup2 cgroup2 rw',
  ].join('\n');

  it('are found beside those of version 1', () => {
    assert.deepEqual(parseCgroupMounts(hybrid), [{ path: '/sys/fs/cgroup/unified', root: '/' }]);
  });

  it('are found with the part of the tree that a container sees', () => {
    assert.deepEqual(parseCgroupMounts(container), [
      { path: '/sys/fs/cgroup', root: '/' },
      { path: '/host/sys/fs/cgroup x', root: '/../../../..' },
    ]);
  });

  it('are none in any other text, which never throws', () => {
    fc.assert(fc.property(fc.string(), (text) => parseCgroupMounts(text).length === 0));
  });
});

describe('the root of the cgroup2 tree', () => {
  const mount = (path: string, type = 'cgroup2') => `1 2 0:3 / ${path} rw - ${type} ${type} rw`;
  /** Any folder with the id of a real root: that of procfs has it too. */
  const whole = '/proc';

  it('is the mount of the whole tree, else the first, and none without a mount', () => {
    assert.equal(findCgroupRoot([mount('/a'), mount(whole), mount('/b')].join('\n')), whole);
    assert.equal(findCgroupRoot([mount('/a'), mount('/b')].join('\n')), '/a');
    assert.throws(() => findCgroupRoot(mount('/a', 'cgroup')), /no cgroup2 tree is mounted/);
    assert.equal(resolveCgroupRoot(undefined, [mount('/a'), mount(whole)].join('\n')), whole);
  });

  it('is below the folder that is named, where versions 1 and 2 are side by side', () => {
    const mounts = [
      ...[mount('/sys/fs/cgroup/unified'), mount('/host/cgroup', 'tmpfs')],
      ...[mount('/host/cgroup/memory', 'cgroup'), mount('/host/cgroup/unified')],
    ].join('\n');
    assert.equal(resolveCgroupRoot('/host/cgroup', mounts), '/host/cgroup/unified');
    assert.equal(resolveCgroupRoot('/host/cgroup/', mounts), '/host/cgroup/unified');
    for (const elsewhere of ['/host/cgroup/memory', '/host/cg', '/host/cgroup/unified2']) {
      assert.throws(() => resolveCgroupRoot(elsewhere, mounts), {
        name: 'RedirectError',
        code: 'UNSUPPORTED',
        message: `find cgroups: no cgroup2 tree is at ${elsewhere} or mounted below it`,
      });
    }
  });
});

describe('the own cgroup', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-cgroup-'));
    mkdirSync(join(folder, 'a/b'), { recursive: true });
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });
  const mount = (root: string, path: string) => `1 2 0:3 ${root} ${path} rw - cgroup2 cgroup2 rw`;

  it('is found below the mount of the whole tree', () => {
    assert.equal(ownCgroupId('0::/a/b\n', mount('/', folder)), cgroupIdOf(join(folder, 'a/b')));
  });

  it('is found below the mount of a part of the tree', () => {
    const part = mount('/a', join(folder, 'a'));
    assert.equal(ownCgroupId('1:cpu:/x\n0::/a/b\n', part), cgroupIdOf(join(folder, 'a/b')));
  });

  it('is a container’s own mount, not the node’s that it has besides', () => {
    const mounts = [mount('/../..', folder), mount('/', join(folder, 'a/b'))].join('\n');
    assert.equal(ownCgroupId('0::/\n', mounts), cgroupIdOf(join(folder, 'a/b')));
  });

  it('is unknown when only other parts of the tree are mounted', () => {
    assert.equal(ownCgroupId('0::/\n', mount('/../..', folder)), undefined);
    assert.equal(ownCgroupId('1:cpu:/x\n', mount('/', folder)), undefined);
  });
});

/** Folders stand for cgroups: an inode is an inode. */
for (const { driver, root, pod, container } of [
  {
    driver: 'systemd',
    root: 'kubepods.slice',
    pod: (podUid: string) =>
      `kubepods-burstable.slice/kubepods-burstable-pod${podUid.replaceAll('-', '_')}.slice`,
    container: `cri-containerd-${id}.scope`,
  },
  {
    driver: 'systemd of kind',
    root: 'kubelet.slice/kubelet-kubepods.slice',
    pod: (podUid: string) => `kubelet-kubepods-pod${podUid.replaceAll('-', '_')}.slice`,
    container: `crio-${id}.scope`,
  },
  {
    driver: 'cgroupfs',
    root: 'kubepods',
    pod: (podUid: string) => `besteffort/pod${podUid}`,
    container: id,
  },
]) {
  describe(`the index of cgroups, driver ${driver}`, () => {
    let folder = '';
    let nowMs = 0;
    let index: CgroupIndex;
    let searches = 0;

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'nmi-cgroup-'));
      mkdirSync(join(folder, root), { recursive: true });
      nowMs = 0;
      searches = 0;
      index = new CgroupIndex({
        podsRoot: () => {
          searches += 1;
          return findPodsRoot(folder);
        },
        nowMs: () => nowMs,
        maxEntries: 8,
      });
    });
    afterEach(() => {
      rmSync(folder, { recursive: true });
    });

    function make(podUid: string, ...below: readonly string[]): bigint {
      const path = join(folder, root, pod(podUid), ...below);
      mkdirSync(path, { recursive: true });
      return cgroupIdOf(path) ?? assert.fail();
    }

    it('finds a container, and what it made itself, by one search of one pod', () => {
      const own = make(uid, container);
      const nested = make(uid, container, 'nested');
      assert.deepEqual(index.resolve(own, [uid]), { podUid: uid, containerId: id });
      assert.deepEqual(index.resolve(nested, [uid]), { podUid: uid, containerId: id });
      assert.deepEqual(index.resolve(own, [uid]), { podUid: uid, containerId: id });
      assert.equal(searches, 1);
    });

    it('says nothing when the caller is another than it claims to be', () => {
      const other = uid.replace('0f7e', 'beef');
      const own = make(uid, container);
      make(other, container);
      assert.equal(index.resolve(own, [other]), undefined);
      assert.equal(index.resolve(own, [uid])?.podUid, uid);
      assert.equal(index.resolve(own, [other]), undefined);
      assert.equal(index.resolve(own, []), undefined);
    });

    it('finds the one of several candidates', () => {
      const uids = ['aa', 'bb', 'cc'].map((start) => uid.replace('0f', start));
      const ids = uids.map((podUid) => make(podUid, container));
      assert.deepEqual(
        ids.map((own) => index.resolve(own, uids)?.podUid),
        uids,
      );
    });

    it('looks for an unknown cgroup at most once in a while, and for a new one at once', () => {
      make(uid, container);
      const stranger = 99_999_999_999n;
      for (let tries = 0; tries < 100; tries += 1) {
        assert.equal(index.resolve(stranger, [uid]), undefined);
      }
      assert.equal(searches, 1);
      const sidecar = make(uid, id.replace('a1', 'ff'));
      assert.equal(index.resolve(sidecar, [uid])?.podUid, uid);
      assert.equal(searches, 2);
      nowMs = 250;
      assert.equal(index.resolve(stranger, [uid]), undefined);
      assert.equal(searches, 3);
    });

    it('finds nothing while there are no pods', () => {
      rmSync(join(folder, root), { recursive: true });
      assert.equal(index.resolve(1n, [uid]), undefined);
    });

    it('is bounded', () => {
      for (let made = 0; made < 20; made += 1) make(uid, container, `nested${made}`);
      const last = make(uid, container, 'nested19');
      index.resolve(last, [uid]);
      assert.equal(index.size, 8);
      for (let missed = 0n; missed < 50n; missed += 1n) index.resolve(missed, ['unknown']);
      assert.equal(index.size, 8);
    });

    it('looks no deeper and no wider below a pod than is sane', () => {
      const deep = make(uid, container, ...Array.from({ length: 12 }, (_, at) => `l${at}`));
      assert.equal(index.resolve(deep, [uid]), undefined);
      for (let made = 0; made < 600; made += 1) make(uid, `wide${made}`);
      assert.equal(listPodCgroups(join(folder, root), uid).length, 512);
    });
  });
}
