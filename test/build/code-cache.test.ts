import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { bundleProgram } from '../../scripts/bundle.ts';
import { makeCodeCache, wrapBundle } from '../../scripts/code-cache.ts';
import { repositoryRoot } from '../conventions/tree.ts';

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

describe('the compiled code in the executable', () => {
  let wrapped = '';

  before(async () => {
    const { script } = await bundleProgram(repositoryRoot, stamp);
    wrapped = wrapBundle(script);
  });

  it('is the same bytes each time, so that an image can be built again and compared', async () => {
    const made = [await makeCodeCache(wrapped), await makeCodeCache(wrapped)];
    const digests = made.map((bytes) => createHash('sha256').update(bytes).digest('hex'));
    assert.equal(digests[0], digests[1]);
    // The code of a start, not only of what runs when the script is loaded.
    assert.ok((made[0]?.length ?? 0) > 2_000_000);
  });
});
