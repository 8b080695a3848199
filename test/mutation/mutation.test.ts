import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readSyntax } from '../conventions/syntax.ts';
import { repositoryFiles, repositoryRoot } from '../conventions/tree.ts';
import { allMutations } from './all.ts';
import { mutate, mutationsOf, testsFor, unexpected, type Mutation } from './mutation.ts';

const tests = repositoryFiles()
  .map(({ path }) => path)
  .filter((path) => path.startsWith('test/') && path.endsWith('.test.ts'));

describe('the list of mutations', () => {
  it('names a text that is in its file exactly once, and leaves a file that parses', () => {
    const wrong = allMutations.flatMap((mutation) => {
      const { file, from, to } = mutation;
      const mutated = mutate(readFileSync(join(repositoryRoot, file), 'utf8'), mutation);
      if (mutated === undefined) return [`${file}: not exactly once: ${from}`];
      if (from === to) return [`${file}: no change: ${from}`];
      try {
        readSyntax({ path: file, text: mutated });
        return [];
      } catch (error) {
        return [`${file}: ${to}: ${String(error)}`];
      }
    });
    assert.deepEqual(wrong, []);
  });

  it('is for files with their own unit test, each fault once', () => {
    const alone = allMutations.filter(({ file }) => testsFor(file, tests).own.length === 0);
    assert.deepEqual([...new Set(alone.map(({ file }) => file))], []);
    const names = allMutations.map(({ file, wrong }) => `${file}: ${wrong}`);
    assert.deepEqual(
      names.filter((name, index) => names.indexOf(name) !== index),
      [],
    );
  });

  it('is long and broad enough, and has few that no test can find', () => {
    assert.ok(allMutations.length >= 150, `${allMutations.length}`);
    assert.ok(new Set(allMutations.map(({ file }) => file)).size >= 60);
    const survivors = allMutations.filter(({ survives }) => survives !== undefined);
    assert.ok(survivors.length <= allMutations.length / 10, `${survivors.length} survivors`);
    assert.ok(survivors.every(({ survives }) => survives !== ''));
  });
});

describe('a mutation', () => {
  const [first] = mutationsOf({ 'src/a.ts': [['it is wrong', 'a', 'b']] });
  const mutation: Mutation = first ?? assert.fail();

  it('replaces its text', () => {
    assert.equal(mutate('x a y', mutation), 'x b y');
    assert.equal(mutate('x a y', { ...mutation, from: 'x a ', to: '' }), 'y');
    assert.equal(mutate('x a y', { ...mutation, to: '$&' }), 'x $& y');
  });

  it('is impossible if its text is missing, or is there twice', () => {
    assert.equal(mutate('x y', mutation), undefined);
    assert.equal(mutate('a a', mutation), undefined);
    assert.equal(mutate('aaa', { ...mutation, from: 'aa' }), undefined);
    assert.equal(mutate('a', { ...mutation, from: '' }), undefined);
  });

  it('must be found by the unit test of its file, or by those beside it', () => {
    const paths = [
      'test/nmi/a/c.test.ts',
      'test/nmi/a/b.test.ts',
      'test/nmi/a/b.kernel.test.ts',
      'test/nmi/a/a.test.ts',
      'test/nmi/a/d.cluster.test.ts',
      'test/nmi/a/b/x.test.ts',
      'test/nmi/b.test.ts',
    ];
    assert.deepEqual(testsFor('src/nmi/a/b.ts', paths), {
      own: ['test/nmi/a/b.test.ts'],
      others: ['test/nmi/a/a.test.ts', 'test/nmi/a/c.test.ts'],
    });
  });

  it('must not survive unless the list accepts that, and must then not be found', () => {
    const accepted = { ...mutation, survives: 'the same again' };
    assert.equal(unexpected(mutation, 'killed'), undefined);
    assert.equal(unexpected(accepted, 'survived'), undefined);
    assert.match(unexpected(mutation, 'survived') ?? '', /no unit test finds it/);
    assert.match(unexpected(accepted, 'killed') ?? '', /impossible: the same again/);
  });
});
