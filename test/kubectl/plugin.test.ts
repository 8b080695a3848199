import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundWorld, play } from './support/recorded-kubectl.ts';

describe('the command line of kubectl nmi', () => {
  it('wants a verb, and suggests one', async () => {
    const none = await play([]);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /No verb is given/);
    const slip = await play(['explian']);
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /unknown verb; did you mean explain\?/);
  });

  it('has a help that names exit codes, and a completion', async () => {
    const { stdout } = await play(['--help']);
    assert.match(stdout, /kubectl nmi explain <what> <name>/);
    assert.match(stdout, /Exit codes: 0 fine/);
    assert.doesNotMatch(stdout, /completion/, 'that script is for programs of one word');
    const { stdout: words } = await play(['__complete', 'exp']);
    assert.match(words, /^explain$/m);
    assert.match(words, /^:4$/m);
  });

  it('prints errors on one line, whatever a server sends', async () => {
    const { stderr } = await play(['explain', 'pod', 'x\u001b[2J\ny'], boundWorld());
    assert.equal(stderr.includes('\u001b'), false);
    assert.equal(stderr.split('\n').length, 3);
  });
});
