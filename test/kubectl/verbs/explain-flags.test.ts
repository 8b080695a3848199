import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, play } from '../support/recorded-kubectl.ts';

describe('the arguments of kubectl nmi explain', () => {
  it('are refused with the reason', async () => {
    for (const words of [
      ['explain'],
      ['explain', 'pod'],
      ['explain', 'node', 'x'],
      ['explain', 'pod', 'web', '--bogus'],
    ]) {
      const { code, stdout, stderr } = await play(words, boundTestBed());
      assert.equal(code, 2, words.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, /^error: [^\n]+\nSee kubectl nmi explain --help\n$/);
    }
  });

  it('have a help with an example', async () => {
    const { code, stdout } = await play(['explain', '--help']);
    assert.equal(code, 0);
    assert.match(stdout, /kubectl nmi explain pod web-7d4b9 -n shop/);
  });
});
