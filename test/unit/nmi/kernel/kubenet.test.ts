import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findKubenet } from '../../../../src/nmi/kernel/kubenet.ts';

describe('a kubenet node', () => {
  it('is detected by the start file of its kubelet, or by its bridge', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-kubenet-'));
    try {
      const path = join(folder, 'kubelet');
      await writeFile(path, 'KUBELET_OPTS=--v=2 --network-plugin=kubenet --x\n');
      assert.equal(
        await findKubenet(path),
        `${path} starts the kubelet with --network-plugin=kubenet`,
      );
      await writeFile(path, 'KUBELET_OPTS=--network-plugin=cni\n');
      assert.equal(await findKubenet(path), undefined);
      assert.equal(await findKubenet(join(folder, 'nothing')), undefined);
      assert.equal(await findKubenet(path, folder), 'the bridge cbr0 of kubenet is on this node');
      assert.equal(await findKubenet(path, join(folder, 'nothing')), undefined);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
