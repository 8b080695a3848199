import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
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
    [`pod${uid}/!${id}`, undefined],
    [`pod${uid}/${id}!`, undefined],
    [`//burstable//pod${uid}//${id}`, id],
  ];
  for (const [path, containerId] of rows) {
    it(`names the pod: ${path.replace(id, 'ID').replace(uid, 'UID').replace(escaped, 'U_ID')}`, () => {
      assert.deepEqual(parsePodCgroup(path), { podUid: uid, containerId });
    });
  }

  it('names a static pod by the hash that the kubelet uses', () => {
    const hash = '9d2f'.repeat(8);
    assert.equal(parsePodCgroup(`burstable/pod${hash}/${id}`)?.podUid, hash);
  });

  it('names nothing if it is not a pod’s', () => {
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
      `xburstable/pod${uid}`,
      `burstablex/pod${uid}`,
      `xpod${uid}/${id}`,
      `pod${uid}!/${id}`,
      `!kubepods-pod${escaped}.slice`,
      `kubepods-pod${escaped}.slicex`,
    ]) {
      assert.equal(parsePodCgroup(path), undefined, path);
    }
  });

  it('names the outermost pod: a process in it may have made any name below', () => {
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

  it('is named after the root, with dashes escaped for systemd alone', () => {
    assert.deepEqual(podCgroupPaths('kubelet-kubepods.slice', uid), [
      `kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${escaped}.slice`,
      `kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${escaped}.slice`,
      `kubelet-kubepods-pod${escaped}.slice`,
    ]);
    assert.deepEqual(podCgroupPaths('kubepods', uid), [
      `burstable/pod${uid}`,
      `besteffort/pod${uid}`,
      `pod${uid}`,
    ]);
  });

  it('is none for a UID that could lead to another path', () => {
    for (const strange of ['', '..', '../../x', 'a/b', 'A', '-a', 'a\n', 'x'.repeat(64)]) {
      assert.deepEqual(podCgroupPaths('kubepods', strange), [], strange);
    }
  });

  it('never throws, whatever it is', () => {
    fc.assert(fc.property(fc.string(), (path) => void parsePodCgroup(path)));
  });
});
