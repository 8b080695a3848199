import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, failed, play, type Recorded } from './support/recorded-kubectl.ts';

describe('the command line of kubectl nmi', () => {
  it('requires a verb, and suggests one', async () => {
    const none = await play([]);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /No verb is given/);
    const slip = await play(['explian']);
    assert.equal(slip.code, 2);
    assert.match(slip.stderr, /unknown verb explian; did you mean explain\?/);
  });

  it('refuses its own flags without a value', async () => {
    for (const flag of ['--namespace', '--agent-namespace', '--output']) {
      const { code, stderr } = await play(['explain', 'pod', 'web', flag], boundTestBed());
      assert.equal(code, 2, flag);
      assert.match(stderr, /^error: --\S+ has no value\n/);
    }
  });

  it('takes a flag of kubectl that is negated or has a dot in it for what it is', async () => {
    for (const flag of ['--no-color', '--as.user']) {
      const { code, stderr } = await play(['explain', 'pod', 'web', flag], boundTestBed());
      assert.equal(code, 2);
      assert.match(stderr, new RegExp(flag.replace('.', '[.]')));
    }
  });

  it('has a help that names exit codes, and a completion', async () => {
    const { stdout } = await play(['--help']);
    assert.match(stdout, /kubectl nmi explain <what> \[name\]/);
    assert.match(stdout, /Exit codes: 0 fine/);
    assert.doesNotMatch(stdout, /completion/, 'that script is for one-word programs');
    const { stdout: words } = await play(['__complete', 'exp']);
    assert.match(words, /^explain$/m);
    assert.match(words, /^:4$/m);
  });

  it('reports its version by a verb, and has no flag of yargs for it', async () => {
    assert.doesNotMatch((await play(['--help'])).stdout, /--version/);
    const flag = await play(['--version']);
    assert.deepEqual([flag.code, flag.stdout], [2, '']);
    assert.equal((await play(['version'], boundTestBed())).code, 0);
  });

  it('reads manifests from standard input for a dash, as kubectl does', async () => {
    const identity = 'kind: AzureIdentity\nmetadata: { name: piped }\n';
    const input = { files: { '-': identity, 'a.yaml': 'kind: Pod\nmetadata: { name: filed }\n' } };
    const both = await play(['analyze', '-f', 'a.yaml', '-f', '-'], input);
    assert.match(both.stdout, / of 1 pods/);
    for (const words of [['-f', '-'], ['--filename', '-'], ['-f=-']]) {
      const { code, stdout, stderr } = await play(['analyze', ...words], input);
      assert.equal(code, 1, stderr);
      assert.match(stdout, /AzureIdentity default\/piped: identity_unbound/);
    }
    const dash = await play(['test', '--pod', 'web', '-'], boundTestBed());
    assert.match(dash.stderr, /the word - has no meaning here/);
  });

  it('is in English whatever the language of the user', async (t) => {
    const before = { ...process.env };
    t.after(() => (process.env = before));
    process.env = { ...before, LC_ALL: 'de_DE.UTF-8' };
    assert.match((await play(['--help'])).stdout, /^Verbs:|^Options:/m);
    assert.match((await play(['explain', '--help'])).stdout, /^Options:/m);
  });

  it('blames nobody when the user interrupts it', async () => {
    const recorded: Recorded = { other: () => failed('signal: interrupt'), isInterrupted: true };
    const { code, stdout, stderr } = await play(['doctor'], recorded);
    assert.deepEqual([code, stdout, stderr], [1, '', 'error: interrupted\n']);
  });

  it('does not report a fault of its own as an error of the user', async () => {
    const fault = new TypeError('a fault');
    const recorded = { ...boundTestBed(), other: () => Promise.reject(fault) };
    await assert.rejects(play(['test', '--pod', 'web', '--image', 'x'], recorded), fault);
  });

  it('prints errors on one line, whatever a server sends', async () => {
    const { stderr } = await play(['explain', 'pod', 'x\u001b[2J\ny'], boundTestBed());
    assert.equal(stderr.includes('\u001b'), false);
    assert.equal(stderr.split('\n').length, 3);
  });
});
