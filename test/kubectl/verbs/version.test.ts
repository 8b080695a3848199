import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { play } from '../support/recorded-kubectl.ts';

describe('kubectl nmi version', () => {
  it('is that of the plugin', async () => {
    const { stdout, calls } = await play(['version']);
    assert.match(stdout, /^0\.0\.0-source [^\n]*\n$/);
    assert.deepEqual(calls, []);
  });
});
