import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import {
  checkExports,
  checkMarks,
  checkNames,
  checkOnly,
  checkPatterns,
  checkProcess,
} from './code-rules.ts';
import { repositoryFiles, type SourceFile } from './tree.ts';

const repository = repositoryFiles();

function file(path: string, ...lines: readonly string[]): SourceFile {
  return { path, text: lines.join('\n') };
}

describe('file names', () => {
  it('in the repository are kebab-case and meaningful', () => {
    assert.deepEqual(checkNames(repository), []);
  });

  it('are refused otherwise', () => {
    const bad = ['src/nmi/fooBar.ts', 'src/cache/Token.ts', 'test/utils.ts', 'src/a-helpers.ts'];
    const found = checkNames([...bad, 'src/nmi/foo-bar.ts', 'test/x.kernel.test.ts'].map(asFile));
    assert.deepEqual(
      found.map((problem) => problem.split(' ')[0]),
      bad,
    );
  });
});

describe('default exports', () => {
  it('do not exist in the repository', () => {
    assert.deepEqual(checkExports(repository), []);
  });

  it('are found in both spellings', () => {
    const planted = [
      file('src/nmi/a.ts', '', 'export default function a(): void {}'),
      file('src/nmi/b.ts', 'const b = 1;', 'export { b as default };'),
      file('src/nmi/c.ts', '// export default 1', `export const c = 'export default';`),
    ];
    assert.deepEqual(checkExports(planted), [
      'src/nmi/a.ts:2 has a default export',
      'src/nmi/b.ts:2 has a default export',
    ]);
  });
});

describe('regular expressions that backtrack', () => {
  it('do not exist in the product', () => {
    assert.deepEqual(checkPatterns(repository), []);
  });

  it('are found, and their harmless neighbours are not', () => {
    const lines = [
      'text.replace(/\\/+$/, "");',
      'text.match(/(?:[a-z]+)+x/);',
      'text.match(/^\\/+$/);',
      'text.match(/[+*]$/);',
      'text.match(/a{1,3}$/);',
    ];
    const found = checkPatterns([file('src/a.ts', ...lines)]);
    assert.deepEqual(
      found.map((problem) => problem.split(' ')[0]),
      ['src/a.ts:1', 'src/a.ts:2'],
    );
  });
});

describe('tests that exclude others', () => {
  it('do not exist in the repository', () => {
    assert.deepEqual(checkOnly(repository), []);
  });

  it('are found as a call and as an option', () => {
    const planted = [
      file('test/a.test.ts', `it.only('x', () => {});`, `// it.only('y')`),
      file('test/b.test.ts', '', `describe('x', { only: true }, () => {});`),
      file('test/c.test.ts', `it('x', { only: false }, () => { list.only(); });`),
    ];
    assert.deepEqual(checkOnly(planted), [
      'test/a.test.ts:1 runs only one test',
      'test/b.test.ts:2 runs only one test',
    ]);
  });
});

describe('marks of unfinished work', () => {
  // Assembled at run time, otherwise this file would be found.
  const marks = ['TO', 'FIX'].map((start, index) => start + ['DO', 'ME'][index]);

  it('do not exist in the repository', () => {
    assert.deepEqual(checkMarks(repository), []);
  });

  it('are found', () => {
    const planted = marks.map((mark) => file('src/nmi/a.ts', '', `// ${mark}: later`));
    const found = checkMarks([...planted, file('src/nmi/b.ts', 'it.todo(); // todos')]);
    assert.deepEqual(found, ['src/nmi/a.ts:2 is unfinished', 'src/nmi/a.ts:2 is unfinished']);
  });
});

describe('exit, arguments and signals of the process', () => {
  it('are touched by src/main.ts alone', () => {
    assert.deepEqual(checkProcess(repository), []);
  });

  const refused = [
    'process.exit(1);',
    'process.exitCode = 1;',
    `process['exit'](1);`,
    'const [, , verb] = process.argv;',
    'const { argv } = process;',
    `process.on('SIGTERM', stop);`,
    `process.once(signal, stop);`,
    `process.on('unhandledRejection', stop);`,
    `import { exit } from 'node:process';`,
  ];
  for (const line of refused) {
    it(`are refused elsewhere: ${line}`, () => {
      assert.equal(checkProcess([file('src/nmi/a.ts', line)]).length, 1);
      assert.deepEqual(checkProcess([file('src/main.ts', line)]), []);
    });
  }

  it('are not confused with other members and events', () => {
    const lines = [
      `process.stdout.on('error', stop);`,
      `process.on('message', take);`,
      'child.exit(); process.pid; process.env;',
    ];
    assert.deepEqual(checkProcess([file('lab/a.ts', ...lines)]), []);
  });
});

function asFile(path: string): SourceFile {
  return { path, text: '' };
}
