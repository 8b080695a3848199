import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import {
  checkCycles,
  checkFolderCycles,
  checkOrder,
  checkPackages,
  checkTools,
} from './directions.ts';
import { repositoryFiles, type SourceFile } from './tree.ts';

const repository = repositoryFiles();

function file(path: string, ...lines: readonly string[]): SourceFile {
  return { path, text: lines.join('\n') };
}

describe('the order of folders', () => {
  it('holds in the repository', () => {
    assert.deepEqual(checkOrder(repository), []);
  });

  const refused: readonly (readonly [path: string, line: string, problem: RegExp])[] = [
    ['src/cache/token/a.ts', `import { x } from '../../nmi/base/b.ts';`, /cache is below nmi/],
    ['src/cache/token/a.ts', `import type { X } from '../index/b.ts';`, /token is below index or/],
    ['src/cache/index/a.ts', `import type { X } from '../../redirect/b.ts';`, /beside it/],
    ['src/cache/index/a.ts', `type X = import('../../nmi/base/b.ts').X;`, /below nmi/],
    ['src/cache/index/a.ts', `import { readFile } from 'node:fs/promises';`, /does no I\/O/],
    ['src/cache/index/a.ts', `import { connect, isIP } from 'node:net';`, /does no I\/O/],
    ['src/cache/index/a.ts', `import * as net from 'node:net';`, /does no I\/O/],
    ['src/cache/token/a.ts', `const net = process.getBuiltinModule('node:net');`, /does no I\/O/],
    ['src/cache/token/a.ts', `import { Pool } from 'undici';`, /knows no package/],
    ['src/redirect/a.ts', `import type { X } from '../cache/clock.ts';`, /redirect is below/],
    ['src/nmi/base/a.ts', `const b = await import('../../../lab/fakes/b.ts');`, /src is below lab/],
    ['src/nmi/base/a.ts', `const b = await import(name);`, /only known at run time/],
    ['src/nmi/admin/a.ts', `export { x } from '../../cli/b.ts';`, /nmi is below cli/],
    ['src/nmi/kube/api/a.ts', `import { x } from '../../grants/b.ts';`, /kube is below grants/],
    ['src/nmi/server/a.ts', `import { x } from '../agent.ts';`, /server is below agent.ts/],
    ['lab/fakes/a.ts', `export * from '../test-bed/b.ts';`, /fakes is below test-bed/],
    ['src/cli/a.ts', `import { main } from '../main.ts';`, /nobody may/],
    ['lab/test-bed/a.ts', `import { main } from '../main.ts';`, /nobody may/],
    ['src/cli/a.ts', `import { x } from '../../test/b.ts';`, /outside src and lab/],
  ];
  for (const [path, line, problem] of refused) {
    it(`refuses in ${path}: ${line}`, () => {
      const [first, ...rest] = checkOrder([file(path, '', line)]);
      assert.match(first ?? 'accepted', problem);
      assert.match(first ?? 'accepted', new RegExp(`^${path}:2 `));
      assert.deepEqual(rest, []);
    });
  }

  it('names folders that have no place in it', () => {
    assert.deepEqual(checkOrder([file('src/nmi/misplaced.ts'), file('src/elsewhere/a.ts')]), [
      'src/nmi/misplaced.ts has no place in the order of src/nmi',
      'src/elsewhere/a.ts has no place in the order of src',
    ]);
  });

  it('allows imports from below', () => {
    const allowed = [
      file('src/cache/index/a.ts', `import { isIP } from 'node:net';`, `import './b.ts';`),
      file('src/nmi/kube/a.ts', `import { b } from '../../cache/clock.ts';`),
      file('src/nmi/server/a.ts', `import { b } from '../base/b.ts';`, `import fs from 'node:fs';`),
      file('lab/test-bed/a.ts', `import { b } from '../../src/nmi/base/b.ts';`),
      file('src/main.ts', `import { b } from './cli/b.ts';`),
      file('test/a.test.ts', `import { b } from '../src/cli/b.ts';`),
    ];
    assert.deepEqual(checkOrder(allowed), []);
  });
});

describe('scripts and the bench', () => {
  it('import nothing that they must not know', () => {
    assert.deepEqual(checkTools(repository), []);
    const planted = [
      file('scripts/image/a.ts', `import { b } from '../../lab/fakes/b.ts';`),
      file(
        'bench/a.ts',
        `import { b } from '../scripts/b.ts';`,
        `import { c } from '../lab/c.ts';`,
      ),
    ];
    assert.deepEqual(checkTools(planted), [
      'scripts/image/a.ts imports lab/fakes/b.ts',
      'bench/a.ts imports scripts/b.ts',
    ]);
  });
});

describe('folders', () => {
  it('import each other in no ring, at any level', () => {
    assert.deepEqual(checkFolderCycles(repository), []);
  });

  it('are caught in a ring of type imports, and of a file and a folder', () => {
    const planted = [
      file('src/nmi/kube/api/a.ts', `import { b } from '../watch/b.ts';`),
      file('src/nmi/kube/watch/c.ts', `import type { D } from '../api/d.ts';`),
      file('src/redirect/x/a.ts', `import { b } from '../b.ts';`),
      file('src/redirect/b.ts', `import { c } from './x/c.ts';`),
    ];
    assert.deepEqual(checkFolderCycles(planted), [
      'src/nmi/kube: api -> watch -> api',
      'src/redirect: b.ts -> x -> b.ts',
    ]);
  });
});

describe('third-party packages', () => {
  it('are imported only in their home folders', () => {
    assert.deepEqual(checkPackages(repository), []);
  });

  it('are refused elsewhere, and if the table does not list them', () => {
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
        'src/base/logger.ts',
        `import { pino } from 'pino';`,
        `import type { Level } from 'pino';`,
      ),
      file('src/base/other.ts', `import { pino } from 'pino';`),
    ];
    assert.deepEqual(checkPackages(planted), [
      'src/base/other.ts:1 imports pino, which src/base/logger.ts is the one file for',
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
