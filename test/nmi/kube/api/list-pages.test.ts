import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RequestOptions } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { listPages } from '../../../../src/nmi/kube/api/list-pages.ts';

const list = { path: '/api/v1/pods', query: { labelSelector: 'a=b' }, pageSize: 2, version: '7' };

/** Returns the given bodies in order, and records the requests. */
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
  it('follows the continue token, which excludes a version, and returns the last version', async () => {
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

  it('reads absent and null items as none', async () => {
    for (const items of [undefined, null, []]) {
      const page = reader({ metadata: { resourceVersion: '1' }, items });
      const everything = { path: '/x', query: {}, pageSize: 0, version: '' };
      const seen: unknown[] = [];
      assert.equal(await listPages(page, everything, {}, (some) => seen.push(...some)), '1');
      assert.deepEqual([page.asked, seen], [['/x'], []]);
    }
  });

  it('is requested in smaller pages when one is too large', async () => {
    const asked: string[] = [];
    const large = new KubeError('TOO_LARGE', 'too large');
    const sizeOf = (path: string) => Number(new URL(path, 'http://x').searchParams.get('limit'));
    const pages = {
      getJson: async (path: string, call?: RequestOptions) => {
        asked.push(path);
        assert.ok((call?.maxBytes ?? 0) >= 30_000_000, 'the size of 20,000 bindings');
        const size = sizeOf(path);
        if (size === 0 || size > 30) throw large;
        const isFirst = !path.includes('continue');
        const metadata = { resourceVersion: '9', ...(isFirst ? { continue: 'c' } : {}) };
        return Promise.resolve({ metadata, items: [size] });
      },
    };
    const items: unknown[] = [];
    const take = (page: readonly unknown[]) => items.push(...page);
    assert.equal(await listPages(pages, { ...list, pageSize: 500 }, {}, take), '9');
    assert.deepEqual(items, [5, 5]);
    // In one piece, and from memory, if a server ignores the limit.
    items.length = asked.length = 0;
    assert.equal(await listPages(pages, { ...list, pageSize: 0, version: '0' }, {}, take), '9');
    assert.deepEqual(items, [5, 5]);
    assert.ok(!asked.at(-1)?.includes('resourceVersion'));
  });

  it('fails when a page of one object is too large', async () => {
    let calls = 0;
    const getJson = async () => {
      calls++;
      return Promise.reject(new KubeError('TOO_LARGE', 'too large'));
    };
    await assert.rejects(
      listPages({ getJson }, list, {}, () => undefined),
      (error) => error instanceof KubeError && error.code === 'TOO_LARGE',
    );
    assert.equal(calls, 2);
  });

  it('refuses an answer that is not a list', async () => {
    const metadata = { resourceVersion: '1' };
    for (const body of [7, null, {}, { items: [] }, { metadata, items: {} }]) {
      await assert.rejects(
        listPages(reader(body), list, {}, () => undefined),
        (error) => error instanceof KubeError && error.code === 'MALFORMED',
      );
    }
  });

  it('stops between two pages on request', async () => {
    const stop = new AbortController();
    const pages = reader({ metadata: { resourceVersion: '9', continue: 'x' }, items: [] });
    const listing = listPages(pages, list, { signal: stop.signal }, () => {
      stop.abort(new Error('enough'));
    });
    await assert.rejects(listing, /^Error: enough$/);
    assert.equal(pages.asked.length, 1);
  });
});
