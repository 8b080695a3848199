import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { renderReport, renderYaml, shellWord } from '../../../src/kubectl/base/output.ts';

describe('a report', () => {
  const value = { a: 'x\u001b[31m\u202e', b: '\u009b2J' };
  it('is the same value as text, JSON or YAML', () => {
    assert.equal(
      renderReport('text', value, () => ['one', 'two']),
      'one\ntwo\n',
    );
    assert.deepEqual(JSON.parse(renderReport('json', value, () => [])), value);
    assert.equal(
      renderReport('yaml', { a: 1, b: ['c'] }, () => []),
      'a: 1\nb:\n  - c\n',
    );
  });

  it('contains no terminal control sequences', () => {
    assert.equal(
      renderReport('text', {}, () => [value.a]),
      'x?[31m?\n',
    );
    assert.doesNotMatch(
      renderReport('json', value, () => []),
      /[^\n -~]/,
    );
    const parts = {
      'key\u202e': ['\u009b2J', 'del\u007f', 'a\u2028b', 'c\u2066', 'two\nlines\u0085', 'é'],
    };
    for (const each of [value, parts]) {
      const yaml = renderReport('yaml', each, () => []);
      assert.doesNotMatch(yaml, /[^\n -~é]/);
      assert.deepEqual(parse(yaml), each);
    }
  });

  it('quotes texts that kubectl would read as another type', () => {
    const labels = { a: 'yes', b: 'on', c: '0777', d: '2026-01-01', e: 'plain' };
    const yaml = renderYaml([labels]);
    assert.deepEqual(parse(yaml, { version: '1.1' }), labels);
    assert.deepEqual(parse(yaml), labels);
  });

  it('repeats an object that it contains twice', () => {
    const shared = { b: 1 };
    assert.equal(renderYaml([{ a: shared, c: shared }]), 'a:\n  b: 1\nc:\n  b: 1\n');
    assert.equal(renderYaml([{ a: 1 }, { b: 2 }]), 'a: 1\n---\nb: 2\n');
  });
});

describe('a word of a command line', () => {
  for (const word of ['plain-1.2/x', "it's", '$(id)', 'a b', '{"a":"b"}', '', '*', '~']) {
    it(`is unchanged by a shell: ${word}`, () => {
      const { stdout } = spawnSync('sh', ['-c', `printf %s ${shellWord(word)}`], {
        encoding: 'utf8',
      });
      assert.equal(stdout, word);
    });
  }
});
