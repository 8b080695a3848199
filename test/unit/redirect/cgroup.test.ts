import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { CgroupIndex } from '../../../src/redirect/cgroup/cgroup-index.ts';
import {
  ancestorIds,
  cgroupIdOf,
  findCgroupRoot,
  findPodsRoot,
  listCgroupIds,
  ownCgroupPath,
  parseCgroupMounts,
  podCgroupId,
  podCgroupPaths,
  qosClassPaths,
} from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { pretendFileSystem, refusal, replaceFs } from '../../support/replaced-fs.ts';

const uid = '0f7e2b1a-9c44-4d1e-8a53-3b1c2d4e5f60';

describe('the path of a cgroup below the root of pods', () => {
  const escaped = uid.replaceAll('-', '_');

  it('is that of a QoS class, for both drivers', () => {
    assert.deepEqual(qosClassPaths('/top/kubepods'), [
      '/top/kubepods/besteffort',
      '/top/kubepods/burstable',
    ]);
    const slice = '/top/kubelet.slice/kubelet-kubepods.slice';
    assert.deepEqual(qosClassPaths(slice), [
      `${slice}/kubelet-kubepods-besteffort.slice`,
      `${slice}/kubelet-kubepods-burstable.slice`,
    ]);
  });

  it('is named after the root, with dashes escaped for systemd alone', () => {
    const slice = '/top/kubelet-kubepods.slice';
    assert.deepEqual(podCgroupPaths(slice, uid), [
      `${slice}/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${escaped}.slice`,
      `${slice}/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${escaped}.slice`,
      `${slice}/kubelet-kubepods-pod${escaped}.slice`,
    ]);
    const root = '/top/kubepods';
    assert.deepEqual(podCgroupPaths(root, uid), [
      `${root}/besteffort/pod${uid}`,
      `${root}/burstable/pod${uid}`,
      `${root}/pod${uid}`,
    ]);
  });

  it('is none for a UID that could lead to another path', () => {
    for (const strange of ['', '..', '../../x', 'a/b', 'A', '-a', 'a\n', 'x'.repeat(64)]) {
      assert.deepEqual(podCgroupPaths('kubepods', strange), [], strange);
    }
  });
});

const id = 'a1b2c3d4e5f6'.repeat(6).slice(0, 64);

/** Folders replace cgroups here: only their inodes matter. */
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
      const podsRoot = () => {
        searches += 1;
        return findPodsRoot(folder);
      };
      index = new CgroupIndex(podsRoot, { monotonicMs: () => nowMs }, 8);
    });
    afterEach(() => {
      rmSync(folder, { recursive: true });
    });

    function make(podUid: string, ...below: readonly string[]): bigint {
      const path = join(folder, root, pod(podUid), ...below);
      mkdirSync(path, { recursive: true });
      return cgroupIdOf(path) ?? assert.fail();
    }

    it('finds a pod by one search, and by no cgroup below the pod’s', () => {
      const own = make(uid);
      assert.equal(index.resolve(own, [uid]), uid);
      assert.equal(index.resolve(own, [uid]), uid);
      assert.equal(searches, 1);
      assert.equal(index.resolve(make(uid, container), [uid]), undefined);
    });

    it('returns nothing when the caller is not the pod that it claims to be', () => {
      const other = uid.replace('0f7e', 'beef');
      const own = make(uid);
      make(other);
      assert.equal(index.resolve(own, [other]), undefined);
      assert.equal(index.resolve(own, [uid]), uid);
      assert.equal(index.resolve(own, [other]), undefined);
      assert.equal(index.resolve(own, []), undefined);
    });

    it('finds the right one of several candidates', () => {
      const uids = ['aa', 'bb', 'cc'].map((start) => uid.replace('0f', start));
      const ids = uids.map((podUid) => make(podUid));
      assert.deepEqual(
        ids.map((own) => index.resolve(own, uids)),
        uids,
      );
    });

    it('searches for an unknown cgroup only once per interval, and for a new one at once', () => {
      const unknown = 99_999_999_999n;
      for (let tries = 0; tries < 100; tries += 1) {
        assert.equal(index.resolve(unknown, [uid]), undefined);
      }
      assert.equal(searches, 1);
      const own = make(uid);
      assert.equal(index.resolve(own, [uid]), uid);
      assert.equal(searches, 2);
      nowMs = 250;
      assert.equal(index.resolve(unknown, [uid]), undefined);
      assert.equal(searches, 3);
    });

    it('finds nothing while there are no pods', () => {
      rmSync(join(folder, root), { recursive: true });
      assert.equal(index.resolve(1n, [uid]), undefined);
    });

    it('remembers a bounded number of unknown cgroups, the newest ones', () => {
      make(uid);
      const unknown = Array.from({ length: 9 }, (_, at) => 99_999_999_990n + BigInt(at));
      for (const each of unknown) index.resolve(each, [uid]);
      assert.equal(searches, 9);
      for (const each of unknown.slice(1)) index.resolve(each, [uid]);
      assert.equal(searches, 9);
      for (const each of unknown.slice(0, 1)) index.resolve(each, [uid]);
      assert.equal(searches, 10);
    });
  });
}

describe('the mounts of the cgroup2 tree', () => {
  const hybrid = [
    '24 1 0:21 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw',
    '25 24 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory',
    '26 24 0:23 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw',
  ].join('\n');
  const container = [
    '40 1 0:30 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw',
    '41 1 0:30 /../../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw',
  ].join('\n');

  it('are found beside those of version 1', () => {
    assert.deepEqual(parseCgroupMounts(hybrid), [{ path: '/sys/fs/cgroup/unified', root: '/' }]);
    for (const cut of ['26 24 0:23 / - cgroup2 x', '26 24 0:23 - cgroup2 x', ' - cgroup2 x']) {
      assert.deepEqual(parseCgroupMounts(cut), []);
    }
  });

  it('are found with the part of the tree that a container sees', () => {
    assert.deepEqual(parseCgroupMounts(container), [
      { path: '/sys/fs/cgroup', root: '/' },
      { path: '/host/sys/fs/cgroup', root: '/../../../..' },
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
    assert.equal(findCgroupRoot('', [mount('/a'), mount(whole), mount('/b')].join('\n')), whole);
    assert.equal(findCgroupRoot('', [mount('/a'), mount('/b')].join('\n')), '/a');
    assert.throws(() => findCgroupRoot('', mount('/a', 'cgroup')), /no cgroup2 tree is mounted/);
    assert.equal(findCgroupRoot(undefined, [mount('/a'), mount(whole)].join('\n')), whole);
  });

  it('is the configured folder if that is part of the tree', () => {
    using tree = pretendFileSystem('cgroup2');
    assert.equal(findCgroupRoot(tree.path, mount(whole)), tree.path);
  });

  it('cannot be found where /proc cannot be read', () => {
    using _refusing = replaceFs({
      readFileSync: () => {
        throw refusal('EACCES');
      },
    });
    assert.throws(() => findCgroupRoot(), { code: 'UNSUPPORTED', step: 'find cgroups' });
  });

  it('is below the configured folder where versions 1 and 2 are side by side', () => {
    const mounts = [
      ...[mount('/sys/fs/cgroup/unified'), mount('/host/cgroup', 'tmpfs')],
      ...[mount('/host/cgroup/memory', 'cgroup'), mount('/host/cgroup/unified')],
    ].join('\n');
    assert.equal(findCgroupRoot('/host/cgroup', mounts), '/host/cgroup/unified');
    assert.equal(findCgroupRoot('/host/cgroup/', mounts), '/host/cgroup/unified');
    for (const elsewhere of ['/host/cgroup/memory', '/host/cg', '/host/cgroup/unified2']) {
      assert.throws(() => findCgroupRoot(elsewhere, mounts), {
        name: 'RedirectError',
        code: 'UNSUPPORTED',
        message: `find cgroups: no cgroup2 tree is at ${elsewhere} or mounted below it`,
      });
    }
  });
});

describe('the agent’s own cgroup', () => {
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
    assert.equal(ownCgroupPath('0::/a/b\n', mount('/', folder)), join(folder, 'a/b'));
  });

  it('is found below the mount of a part of the tree', () => {
    const part = mount('/a', join(folder, 'a'));
    assert.equal(ownCgroupPath('1:cpu:/x\n0::/a/b\n', part), join(folder, 'a/b'));
  });

  it('is a container’s own mount, not the node’s mount that it has as well', () => {
    const mounts = [mount('/../..', folder), mount('/', join(folder, 'a/b'))].join('\n');
    assert.equal(ownCgroupPath('0::/\n', mounts), join(folder, 'a/b/'));
  });

  it('is unknown when its part of the tree is not mounted', () => {
    assert.equal(ownCgroupPath('0::/\n', mount('/../..', folder)), undefined);
    assert.equal(ownCgroupPath('1:cpu:/x\n', mount('/', folder)), undefined);
    assert.equal(ownCgroupPath('10::/a/b\n', mount('/', folder)), undefined, 'another hierarchy');
    assert.equal(ownCgroupPath('0::/abc\n', mount('/a', folder)), undefined, 'not below it');
    const own = join(folder, 'a');
    assert.equal(ownCgroupPath('0::/a\n', mount('/a', own)), own, 'exactly this part');
  });
});

/** Folders replace cgroups here: only their inodes matter. */
describe('the tree of cgroups', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-cgroup-'));
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  function make(...path: readonly string[]): bigint {
    const made = join(folder, ...path);
    mkdirSync(made, { recursive: true });
    return cgroupIdOf(made) ?? assert.fail();
  }

  it('has no id for a missing folder', () => {
    assert.equal(cgroupIdOf(join(folder, 'nothing')), undefined);
    assert.equal(typeof make('something'), 'bigint');
  });

  it('has its pods in the first of the usual places that exists', () => {
    assert.equal(findPodsRoot(folder), undefined);
    make('kubelet/kubepods');
    assert.equal(findPodsRoot(folder), join(folder, 'kubelet/kubepods'));
    make('kubepods');
    assert.equal(findPodsRoot(folder), join(folder, 'kubepods'));
  });

  it('has the cgroup of a pod in any class', () => {
    assert.equal(podCgroupId(join(folder, 'kubepods'), uid), undefined);
    const own = make('kubepods/burstable', `pod${uid}`);
    assert.equal(podCgroupId(join(folder, 'kubepods'), uid), own);
  });

  it('lists all cgroups below one, except those below an exempt one', () => {
    const [a, b, c, d] = [make('w/a'), make('w/a/b'), make('w/a/b/c'), make('w/d')];
    const whole = make('w');
    const path = join(folder, 'w');
    assert.deepEqual(new Set(listCgroupIds(path, [])), new Set([whole, a, d, b, c]));
    assert.deepEqual(new Set(listCgroupIds(path, [b])), new Set([whole, a, d]));
    assert.deepEqual(listCgroupIds(path, [whole]), []);
    assert.deepEqual(listCgroupIds(join(folder, 'nothing'), []), []);
  });

  it('is walked only to a limited depth', () => {
    const levels = Array.from({ length: 30 }, (_, depth) => `l${depth}`);
    make('deep', ...levels);
    assert.equal(listCgroupIds(join(folder, 'deep'), []).length, 17);
  });

  it('has the ids of a folder’s parents, nearest first', () => {
    const [outer, inner] = [make('p'), make('p/q')];
    make('p/q/r');
    const ids = ancestorIds(join(folder, 'p/q/r'));
    assert.deepEqual(ids.slice(0, 3), [inner, outer, cgroupIdOf(folder)]);
    const up = folder.split('/').length - 1;
    assert.ok(ids.length >= 3 && ids.length <= 3 + up, 'ends at the root');
  });
});
