import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { noRedirect } from '../../src/redirect/none.ts';

describe('no redirect', () => {
  it('is off, whatever is called', async () => {
    const redirect = noRedirect();
    await redirect.prepare();
    assert.equal((await redirect.install()).state, 'off');
    assert.equal((await redirect.verify()).state, 'off');
    await redirect.remove();
    assert.deepEqual(redirect.mode, 'none');
  });
});
