import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mirrorsOf } from '../mutation/tests-beside.ts';
import { checkMirrors } from './mirrors.ts';
import { repositoryFiles, type SourceFile } from './tree.ts';

function file(path: string, ...lines: readonly string[]): SourceFile {
  return { path, text: lines.join('\n') };
}

describe('the test of a file', () => {
  it('exists under its name for every file in the repository that makes decisions', () => {
    assert.deepEqual(checkMirrors(repositoryFiles()), []);
  });

  it('may be of the unit, the kernel or the cluster', () => {
    const [unit, kernel, cluster] = mirrorsOf('src/nmi/base/a.ts');
    assert.equal(unit, 'test/nmi/base/a.test.ts');
    const source = file('src/nmi/base/a.ts', 'if (a) b();');
    for (const mirror of [unit, kernel, cluster]) {
      assert.deepEqual(checkMirrors([source, file(mirror ?? '')]), []);
    }
    for (const other of ['test/nmi/a.test.ts', 'test/nmi/base/a.ts', 'test/nmi/base/a-b.test.ts']) {
      assert.equal(checkMirrors([source, file(other)]).length, 1, other);
    }
  });

  const decisions = [
    'if (a) b();',
    'switch (a) { default: }',
    'const c = a ? 1 : 2;',
    'const c = a && b;',
    'const c = a || b;',
    'const c = a ?? b;',
    'a ??= b;',
    'a ||= b;',
    'a &&= b;',
    'for (;;) b();',
    'for (const c in a) b(c);',
    'for (const c of a) b(c);',
    'while (a) b();',
    'do b(); while (a);',
  ];
  for (const line of decisions) {
    it(`is required for: ${line}`, () => {
      assert.deepEqual(checkMirrors([file('src/nmi/a.ts', '', line)]), [
        'src/nmi/a.ts:2 decides something, and there is no test/nmi/a.test.ts',
      ]);
    });
  }

  it('is not required for types, calls and constants, nor outside the product', () => {
    const lines = [
      'export type A<T> = T extends string ? 1 : 2;',
      'export type B = 1 | 2;',
      "export const c = 'if (a) b(); ' + f(1 | 2);",
      '// if (a) b();',
      'export function d(a?: E): number { return a?.b.c(() => a.d); }',
    ];
    const elsewhere = file('lab/a.ts', 'if (a) b();');
    assert.deepEqual(checkMirrors([file('src/nmi/a.ts', ...lines), elsewhere]), []);
  });
});
