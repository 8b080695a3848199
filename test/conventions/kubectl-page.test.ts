import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readPage, renderPage } from '../../scripts/kubectl-page.ts';

describe('docs/kubectl.md', () => {
  it('is generated from the current plugin (npm run docs)', async () => {
    assert.equal(await readPage(), await renderPage());
  });
});
