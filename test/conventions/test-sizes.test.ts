/** Which tests each of the three runs has: the table of CONTRIBUTING.md, the kinds, and the files. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { describe, it } from 'node:test';
import { isExclusive, kindOf, kinds, sizes, type Kind } from '../runner/kinds.ts';
import { repositoryFiles, repositoryRoot } from './tree.ts';

const page = readFileSync(join(repositoryRoot, 'CONTRIBUTING.md'), 'utf8');
const tests = repositoryFiles().filter(({ path }) => /^test\/.*\.test\.ts$/.test(path));

interface Row {
  readonly name: string;
  readonly files: string;
  readonly isAlone: boolean;
  /** By the sizes. */
  readonly cells: readonly string[];
}

/** Of the table that has a column `--long adds`. */
function readRows(): readonly Row[] {
  const [, body = ''] = page.split(/^\|[^\n]*`--long` adds +\|\n\|[ |-]+\n/m);
  const lines = body.slice(0, body.indexOf('\n\n')).split('\n');
  return lines.map((line) => {
    const [name = '', files = '', alone, ...cells] = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    const plain = (text: string): string => text.replaceAll('`', '');
    return { name: plain(name), files: plain(files), isAlone: alone === 'yes', cells };
  });
}

const rows = readRows();

function rowOf({ files }: Kind): Row {
  const row = rows.find((each) => each.files === files);
  assert.ok(row !== undefined, `CONTRIBUTING.md has no row for ${files}`);
  return row;
}

describe('the table of tests in CONTRIBUTING.md', () => {
  it('has the kinds, and the smallest run of each', () => {
    assert.equal(rows.length, kinds.length);
    for (const kind of kinds) {
      const { name, isAlone, cells } = rowOf(kind);
      assert.deepEqual([name, isAlone], [kind.name, kind.isExclusive], kind.files);
      const first = cells.findIndex((cell) => cell !== '');
      assert.equal(sizes[first], kind.size, kind.files);
    }
  });

  it('has only kinds with files', () => {
    for (const kind of kinds) {
      assert.ok(
        tests.some(({ path }) => kindOf(path) === kind),
        kind.files,
      );
    }
  });

  it('has a longer form for each file that has one', () => {
    const longer = tests.filter(({ text }) => /^import .*\bsizeOfThisRun\b/m.test(text));
    assert.ok(longer.length >= 3);
    for (const { path } of longer) {
      const [, , long = ''] = rowOf(kindOf(path)).cells;
      assert.notEqual(long, '', path);
      if (kindOf(path).name === 'unit') assert.ok(long.includes(path), path);
    }
  });

  it('has the suites that run on the older Kubernetes, and both versions', () => {
    const onBoth = tests
      .filter(({ text }) => /^describeOnEveryVersion\(/m.test(text))
      .map(({ path }) => posix.basename(path, '.cluster.test.ts'));
    const [newest = '', older = ''] = rowOf(kindOf('a.cluster.test.ts')).cells;
    assert.deepEqual(older.replace(/^on [\d.]+: /, '').split(', '), onBoth.toSorted());
    const versions = readdirSync(join(repositoryRoot, 'test/cluster/go'))
      .map((name) => /^kubernetes-(.*)$/.exec(name)?.[1])
      .filter((version) => version !== undefined);
    assert.deepEqual(
      [older, newest].map((cell) => /\d+\.\d+/.exec(cell)?.[0]),
      versions.toSorted(),
    );
  });
});

describe('the kind of a test file', () => {
  const examples = [
    ['test/a/b.test.ts', 'unit', 'test', false],
    ['test/a/parser.fuzz.test.ts', 'unit', 'test', false],
    ['test/deploy/image.test.ts', 'unit', 'test', false],
    ['test/conformance/wire.test.ts', 'conformance', 'test', false],
    ['/clone/test/conformance/wire.test.ts', 'conformance', 'test', false],
    ['test/deploy/chart.helm.test.ts', 'helm', 'test', false],
    ['test/lab/attacks.lab.test.ts', 'lab', 'all', true],
    ['test/clients/clients.kernel.test.ts', 'kernel', 'all', true],
    ['test/cluster/wide/a.cluster.test.ts', 'cluster', 'all', false],
    ['test/lab/scenarios.lab.test.ts', 'lab', 'test', false],
    ['test/a/b.kernel.test.ts', 'kernel', 'test', true],
    ['test/a/b.cluster.test.ts', 'cluster', 'test', false],
    ['test/a/b.node.test.ts', 'node', 'all', false],
    ['test/a/b.debian.test.ts', 'debian', 'all', false],
    ['test/a/b.image.test.ts', 'debian', 'long', false],
    ['test/kernels/smoke.vm.test.ts', 'kernels', 'all', false],
    ['test/kernels/long/lab.vm.test.ts', 'kernels', 'long', false],
  ] as const;
  for (const [file, name, size, alone] of examples) {
    it(`is ${name} for ${file}`, () => {
      const kind = kindOf(file);
      assert.deepEqual([kind.name, kind.size, kind.isExclusive], [name, size, alone]);
      assert.equal(isExclusive(file), alone);
    });
  }

  it('is none for other files', () => {
    assert.throws(() => kindOf('test/support/ask.ts'), /is not the name of a test/);
    assert.equal(isExclusive('test/runner/run.ts'), false);
  });
});
