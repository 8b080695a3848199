import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { podCgroupPaths, qosClassPaths } from '../../../src/redirect/cgroup/cgroup-tree.ts';

const uid = '0f7e2b1a-9c44-4d1e-8a53-3b1c2d4e5f60';
const escaped = uid.replaceAll('-', '_');

describe('the path of a cgroup below the root of pods', () => {
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
