import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseArgs } from '../../src/cli/flags.ts';

const isSwitch = { type: 'boolean' } as const;
const known = {
  ...{ node: {}, v: {}, output: { alias: 'o' } },
  ...{ forceNamespaced: isSwitch, once: isSwitch },
};
const parse = (...words: string[]) => parseArgs(words, known);

describe('the args of a command line', () => {
  it('do not let a bare boolean swallow the next word', () => {
    assert.deepEqual(parse('--forceNamespaced', '--node', 'true', '-once', 'word'), {
      flags: { forceNamespaced: 'true', node: 'true', once: 'true' },
      rest: ['word'],
    });
    assert.deepEqual(parse('--once=0', '--', '--node'), {
      flags: { once: '0' },
      rest: ['--node'],
    });
  });

  it('have the value of -v attached, as in glog', () => {
    for (const words of [['-v2'], ['-v=2'], ['-v', '2'], ['--v=2']]) {
      assert.deepEqual(parse(...words), { flags: { v: '2' }, rest: [] });
    }
  });

  it('are refused if a flag has no value at the end, or before another flag', () => {
    const refusal = '--node has no value; write --node=VALUE';
    for (const words of [['--node'], ['--node', '--v=2'], ['--node', '--'], ['-node']]) {
      assert.equal(parse(...words), refusal, words.join(' '));
    }
    assert.equal(parse('-o'), '-o has no value; write -o=VALUE');
    for (const value of ['-1', '-', '']) {
      assert.deepEqual(parse('--node', value), { flags: { node: value }, rest: [] });
    }
    assert.deepEqual(parse('--node='), { flags: { node: '' }, rest: [] });
  });

  it('are split into flags with their last text, and the rest', () => {
    assert.deepEqual(parse('redirect', '-o', 'json', '--output=text', '--odd', '3', '7'), {
      flags: { output: 'text', odd: '3' },
      rest: ['redirect', '7'],
    });
    assert.deepEqual(parse('explain', '007'), { flags: {}, rest: ['explain', '007'] });
    assert.deepEqual(parse('--odd.dot', '--no-node'), {
      flags: { 'odd.dot': 'true', 'no-node': 'true' },
      rest: [],
    });
  });

  it('keep the quotes of a value, which no shell has removed', () => {
    for (const [flag, name] of [
      ['--node', 'node'],
      ['-node', 'node'],
      ['-o', 'output'],
      ['--once', 'once'],
    ] as const) {
      for (const value of ['"true"', "'true'", '"']) {
        assert.deepEqual(parse(`${flag}=${value}`), { flags: { [name]: value }, rest: [] });
      }
    }
    assert.deepEqual(parse('--node', '"a"', "'b'"), { flags: { node: '"a"' }, rest: ["'b'"] });
  });

  it('may be names of JavaScript itself', () => {
    assert.deepEqual(parse('--constructor=y', '--toString'), {
      flags: { constructor: 'y', toString: 'true' },
      rest: [],
    });
  });
});
