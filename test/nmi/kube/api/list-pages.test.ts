import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { listPages } from '../../../../src/nmi/kube/api/list-pages.ts';

const list = { path: '/api/v1/pods', query: { labelSelector: 'a=b' }, pageSize: 2, version: '7' };

/** Answers with the given bodies in turn, and keeps what was asked. */
function reader(...bodies: readonly unknown[]) {
  const asked: string[] = [];
  return {
    asked,
    getJson: async (path: string) => {
      asked.push(path);
      return Promise.resolve(bodies[asked.length - 1]);
    },
  };
}

describe('a paged list', () => {
  it('follows the continue token, which excludes a version, and gives the last version', async () => {
    const pages = reader(
      { metadata: { resourceVersion: '9', continue: 'x/+=' }, items: [1, 2] },
      { metadata: { resourceVersion: '9' }, items: [3] },
    );
    const items: unknown[] = [];
    const version = await listPages(pages, list, {}, (page) => items.push(...page));
    assert.deepEqual([version, items], ['9', [1, 2, 3]]);
    assert.deepEqual(pages.asked, [
      '/api/v1/pods?labelSelector=a%3Db&limit=2&resourceVersion=7',
      '/api/v1/pods?labelSelector=a%3Db&limit=2&continue=x%2F%2B%3D',
    ]);
  });

  it('takes absent and null items as none', async () => {
    for (const items of [undefined, null, []]) {
      const page = reader({ metadata: { resourceVersion: '1' }, items });
      const everything = { path: '/x', query: {}, pageSize: 0, version: '' };
      const seen: unknown[] = [];
      assert.equal(await listPages(page, everything, {}, (some) => seen.push(...some)), '1');
      assert.deepEqual([page.asked, seen], [['/x'], []]);
    }
  });

  it('refuses what is no list', async () => {
    const metadata = { resourceVersion: '1' };
    for (const body of [7, null, {}, { items: [] }, { metadata, items: {} }]) {
      await assert.rejects(
        listPages(reader(body), list, {}, () => undefined),
        (error) => error instanceof KubeError && error.code === 'MALFORMED',
      );
    }
  });

  it('stops between two pages when told to', async () => {
    const stop = new AbortController();
    const pages = reader({ metadata: { resourceVersion: '9', continue: 'x' }, items: [] });
    const listing = listPages(pages, list, { signal: stop.signal }, () => {
      stop.abort(new Error('enough'));
    });
    await assert.rejects(listing, /^Error: enough$/);
    assert.equal(pages.asked.length, 1);
  });
});
