import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { checkAreas, checkCycles, checkPackages } from './directions.ts';
import { repositoryFiles, type SourceFile } from './tree.ts';

const repository = repositoryFiles();

function file(path: string, ...lines: readonly string[]): SourceFile {
  return { path, text: lines.join('\n') };
}

describe('directions between the areas of src', () => {
  it('hold in the repository', () => {
    assert.deepEqual(checkAreas(repository), []);
  });

  const refused: readonly (readonly [path: string, line: string, problem: RegExp])[] = [
    ['src/cache/a.ts', `import { x } from '../nmi/b.ts';`, /cache may import nothing of ours/],
    ['src/cache/a.ts', `import type { X } from '../redirect/b.ts';`, /nothing of ours/],
    ['src/cache/a.ts', `type X = import('../nmi/b.ts').X;`, /nothing of ours/],
    ['src/cache/a.ts', `import { readFile } from 'node:fs/promises';`, /does no I\/O/],
    ['src/cache/a.ts', `import { connect, isIP } from 'node:net';`, /does no I\/O/],
    ['src/cache/a.ts', `import * as net from 'node:net';`, /does no I\/O/],
    ['src/cache/a.ts', `const net = process.getBuiltinModule('node:net');`, /does no I\/O/],
    ['src/cache/a.ts', `import { Pool } from 'undici';`, /knows no package/],
    ['src/redirect/a.ts', `import type { X } from '../cache/b.ts';`, /redirect may import nothing/],
    ['src/nmi/a.ts', `const b = await import('../lab/b.ts');`, /nmi may import cache, redirect/],
    ['src/nmi/a.ts', `const b = await import(name);`, /only known at run time/],
    ['src/nmi/admin/a.ts', `export { x } from '../../cli/b.ts';`, /nmi may import/],
    ['src/lab/a.ts', `export * from '../cli/b.ts';`, /lab may import nmi, cache, redirect/],
    ['src/cli/a.ts', `import { main } from '../main.ts';`, /nobody may/],
    ['src/cli/a.ts', `import { x } from '../../test/b.ts';`, /outside src/],
    ['src/a.ts', `import { x } from './cache/b.ts';`, /no known area/],
  ];
  for (const [path, line, problem] of refused) {
    it(`refuse in ${path}: ${line}`, () => {
      const [first, ...rest] = checkAreas([file(path, '', line)]);
      assert.match(first ?? 'accepted', problem);
      assert.match(first ?? 'accepted', new RegExp(`^${path}:2 `));
      assert.deepEqual(rest, []);
    });
  }

  it('allow what the order allows', () => {
    const allowed = [
      file('src/cache/a.ts', `import { isIP } from 'node:net';`, `import { b } from './b.ts';`),
      file('src/nmi/a.ts', `import { b } from '../cache/b.ts';`, `import fs from 'node:fs';`),
      file('src/lab/a.ts', `import { b } from '../nmi/b.ts';`),
      file('src/cli/a.ts', `import { b } from '../lab/b.ts';`),
      file('src/main.ts', `import { b } from './cli/b.ts';`),
      file('test/a.test.ts', `import { b } from '../src/cli/b.ts';`),
    ];
    assert.deepEqual(checkAreas(allowed), []);
  });
});

describe('third-party packages', () => {
  it('are imported only where they are at home', () => {
    assert.deepEqual(checkPackages(repository), []);
  });

  it('are refused elsewhere, and when the table does not know them', () => {
    const planted = [
      file('src/nmi/listener.ts', `import { Pool } from 'undici';`),
      file('src/nmi/options.ts', `import type { Argv } from 'yargs';`),
      file('src/cli/run.ts', `const prom = await import('prom-client');`),
      file('src/nmi/kube/client.ts', `import { KubeConfig } from '@kubernetes/client-node';`),
      file('src/nmi/log.ts', `import express from 'express';`),
    ];
    assert.deepEqual(
      checkPackages(planted).map((problem) => problem.split(' imports ')[0]),
      planted.map(({ path }) => `${path}:1`),
    );
  });

  it('that have one adapter are refused in a second file', () => {
    const planted = [
      file(
        'src/nmi/logger.ts',
        `import { pino } from 'pino';`,
        `import type { Level } from 'pino';`,
      ),
      file('src/nmi/other.ts', `import { pino } from 'pino';`),
    ];
    assert.deepEqual(checkPackages(planted), [
      'src/nmi/other.ts:1 imports pino, which src/nmi/logger.ts is the one file for',
    ]);
  });
});

describe('import cycles', () => {
  it('do not exist in the repository', () => {
    assert.deepEqual(checkCycles(repository), []);
  });

  it('are found through any kind of import', () => {
    const planted = [
      file('src/nmi/a.ts', `import { b } from './b.ts';`),
      file('src/nmi/b.ts', `import type { C } from './kube/c.ts';`),
      file('src/nmi/kube/c.ts', `export { a } from '../a.ts';`),
      file('src/nmi/d.ts', `import { a } from './a.ts';`),
      file('src/nmi/e.ts', `import { e } from './e.ts';`),
    ];
    assert.deepEqual(checkCycles(planted), [
      'src/nmi/a.ts -> src/nmi/b.ts -> src/nmi/kube/c.ts -> src/nmi/a.ts',
      'src/nmi/e.ts -> src/nmi/e.ts',
    ]);
  });
});
