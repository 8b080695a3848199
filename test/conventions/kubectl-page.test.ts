import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readPage, renderPage } from '../../scripts/kubectl-page.ts';

describe('docs/kubectl.md', () => {
  it('is that of the plugin as it is (npm run docs)', async () => {
    assert.equal(await readPage(), await renderPage());
  });
});
