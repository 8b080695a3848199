import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { verbs } from '../../src/cli/verbs.ts';

describe('the table of verbs', () => {
  it('has a sentence and an example for each', () => {
    for (const [name, { summary, examples, actions = {} }] of Object.entries(verbs)) {
      for (const text of [summary, ...Object.values(actions)]) assert.match(text, /^[A-Z].*\.$/);
      assert.ok(examples.length > 0);
      for (const example of examples) assert.match(example, new RegExp(`^nmi (?:${name}\\b|--)`));
    }
  });

  it('gives each verb its words and flags', async () => {
    for (const [name, words, expected] of [
      ['run', [], /--output/],
      ['redirect', ['verify'], /--output/],
      ['conditions', [], /--output/],
      ['demo', [], /does not look like a pod/],
      ['explain', [], /--output has the value "nope"/],
    ] as const) {
      let stderr = '';
      const io = {
        environment: {},
        stdout: () => undefined,
        stderr: (text: string) => (stderr += text),
        stop: AbortSignal.abort(),
      };
      const code = await verbs[name]?.start({ flags: { output: 'nope' }, rest: words }, io);
      assert.equal(code, 2, name);
      assert.match(stderr, expected);
    }
  });

  it('lists the flags without a value, including aliases and old spellings', () => {
    const isBoolean = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.type === 'boolean';
    assert.deepEqual(
      ['forceNamespaced', 'force-namespaced', 'logtostderr', 'node', 'v', 'log_dir'].map((flag) =>
        isBoolean('run', flag),
      ),
      [true, true, true, false, false, false],
    );
    assert.deepEqual(
      ['once', 'outside-pod', 'period'].map((flag) => isBoolean('demo', flag)),
      [true, true, false],
    );
  });

  it('describes the value of a flag unless its type shows that', () => {
    const flagOf = (flag: string) => verbs['run']?.flags[flag];
    const takes = (flag: string) => / Takes /.test(String(flagOf(flag)?.describe));
    const shown = ['strict-identity', 'redirect', 'kubeconfig', 'nmi-port', 'node'];
    assert.deepEqual(shown.map(takes), [false, false, false, true, true]);
    assert.ok(String(flagOf('redirect')?.choices).startsWith('auto,'));
    assert.equal(flagOf('node')?.choices, undefined);
  });

  it('shows the flags that a process has', () => {
    const isHidden = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.hidden;
    assert.deepEqual(
      [isHidden('conditions', 'identity-owners'), isHidden('conditions', 'nmi-port')],
      [false, true],
    );
  });

  it('hides the agent’s own flags from the help of the redirect, and old flags everywhere', () => {
    const isHidden = (verb: string, flag: string) => verbs[verb]?.flags[flag]?.hidden === true;
    assert.deepEqual(
      [isHidden('redirect', 'strict-identity'), isHidden('redirect', 'nmi-port')],
      [true, false],
    );
    assert.ok(isHidden('run', 'logtostderr') && !isHidden('run', 'strict-identity'));
  });
});
