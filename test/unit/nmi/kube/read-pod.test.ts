import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readPod } from '../../../../src/nmi/kube/watch/read-pod.ts';

function answering(answer: unknown) {
  const paths: string[] = [];
  const client = {
    getJson: (path: string) => {
      paths.push(path);
      return Promise.resolve(answer);
    },
  };
  return { client, paths };
}

const metadata = { namespace: 'a', name: 'p', uid: 'u' };

describe('a pod that is read', () => {
  it('is the one of that name in the API server', async () => {
    const items = [{ metadata, status: { podIPs: [{ ip: '10.0.0.5' }] } }];
    const { client, paths } = answering({ items });
    const pod = await readPod(client, 'node-a', { namespace: 'a', name: 'p' });
    assert.deepEqual([pod?.uid, pod?.ips], ['u', ['10.0.0.5']]);
    assert.deepEqual(paths, [
      '/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp%2Cspec.nodeName%3Dnode-a',
    ]);
  });

  it('is missing when there is none, another one, or one that cannot be decoded', async () => {
    for (const answer of [
      { items: [] },
      { items: [{ metadata: { ...metadata, name: 'other' } }] },
      { items: [{ metadata: { name: 'p' } }] },
      { items: 'none' },
      'no list',
    ]) {
      const { client } = answering(answer);
      assert.equal(await readPod(client, 'node-a', { namespace: 'a', name: 'p' }), undefined);
    }
  });
});
