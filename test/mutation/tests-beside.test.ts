import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Imports, testsBeside } from './tests-beside.ts';
import { repositoryRoot } from '../conventions/tree.ts';

describe('the tests beside a file', () => {
  const paths = [
    'test/nmi/a/c.test.ts',
    'test/nmi/a/b.test.ts',
    'test/nmi/a/b.kernel.test.ts',
    'test/nmi/a/a.test.ts',
    'test/nmi/a/d.kernel.test.ts',
    'test/nmi/a/b/x.test.ts',
    'test/nmi/b.test.ts',
  ];

  it('are its own of the unit, and then the others of the folder', () => {
    assert.deepEqual(testsBeside('src/nmi/a/b.ts', paths), [
      'test/nmi/a/b.test.ts',
      'test/nmi/a/a.test.ts',
      'test/nmi/a/c.test.ts',
    ]);
  });

  it('have its own on a kernel, if it has no other', () => {
    assert.deepEqual(testsBeside('src/nmi/a/d.ts', paths), [
      'test/nmi/a/d.kernel.test.ts',
      'test/nmi/a/a.test.ts',
      'test/nmi/a/b.test.ts',
      'test/nmi/a/c.test.ts',
    ]);
  });
});

describe('the imports of a file', () => {
  const imports = new Imports(repositoryRoot);

  it('reach a file at any distance, and no other', () => {
    const from = 'test/mutation/tests-beside.test.ts';
    assert.ok(imports.reaches(from, 'test/mutation/tests-beside.ts'));
    assert.ok(imports.reaches(from, 'test/runner/kinds.ts'));
    assert.ok(!imports.reaches(from, 'test/mutation/mutants.ts'));
    assert.ok(!imports.reaches('src/none.ts', from));
  });
});
