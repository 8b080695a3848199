import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { CgroupIndex } from '../../../src/redirect/cgroup/cgroup-index.ts';
import { cgroupIdOf, findPodsRoot } from '../../../src/redirect/cgroup/cgroup-tree.ts';

const uid = '0f7e2b1a-9c44-4d1e-8a53-3b1c2d4e5f60';
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
