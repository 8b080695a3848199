import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { completeBooleans, flagsWithoutValue, flagTexts } from '../../src/cli/flags.ts';

describe('the args of a command line', () => {
  it('do not let a bare boolean swallow the next word', () => {
    assert.deepEqual(
      completeBooleans(['--forceNamespaced', '--node', 'true', '-v'], (flag) => flag !== 'node'),
      ['--forceNamespaced=true', '--node', 'true', '-v=true'],
    );
    assert.deepEqual(
      completeBooleans(['--a=b', 'a', '--', '---a', '-1'], () => true),
      ['--a=b', 'a', '--', '---a', '-1'],
    );
  });

  it('have the value of -v attached, as in glog', () => {
    assert.deepEqual(
      completeBooleans(['-v2', '-v10', '-vx', '-w2'], () => false),
      ['-v=2', '-v=10', '-vx', '-w2'],
    );
  });

  it('have no value at the end, or before another flag', () => {
    const takesValue = (flag: string) => flag !== 'unknown';
    const without = (...args: string[]) => flagsWithoutValue(args, takesValue);
    assert.deepEqual(without('--a', '-1', '--b', 'x', '--c=', '--unknown', '-d'), ['-d']);
    assert.deepEqual(without('--a', '--b', 'x'), ['--a']);
    assert.deepEqual(without('--a', '--'), ['--a']);
    assert.deepEqual(without('--a', '-'), []);
  });

  it('are split into flags with their last text, and the rest', () => {
    const parsed = {
      $0: 'nmi',
      _: ['redirect', 7],
      node: 'n',
      repeated: ['a', 'b'],
      bare: true,
      number: 3,
      unset: undefined,
      odd: {},
      none: [],
    };
    assert.deepEqual(flagTexts(parsed), {
      flags: { node: 'n', repeated: 'b', bare: 'true', number: '3', odd: '', none: '' },
      rest: ['redirect', '7'],
    });
    assert.deepEqual(flagTexts({ node: 'n' }), { flags: { node: 'n' }, rest: [] });
  });
});
