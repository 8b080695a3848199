import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startNmi } from './process/agent-child.ts';

describe('the process', () => {
  it('ends with 2 on an unknown verb, which it reports on its standard error', async () => {
    const child = startNmi(['serve', '--node=n']);
    assert.equal(await child.exited, 2);
    assert.equal(child.stdout(), '');
    assert.match(child.stderr(), /"serve"/);
  });

  it('ends with 0 after it has written all its output', async () => {
    const child = startNmi(['--help']);
    assert.equal(await child.exited, 0);
    assert.match(child.stdout(), /^Microsoft Entra tokens[^]*\n$/);
    assert.equal(child.stderr(), '');
  });
});
