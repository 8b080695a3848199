import { after, before, describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundle } from '../../../scripts/bundle.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

/** `trace` prints what ran in which order, and whether node:http was loaded by then. */
const sources: Readonly<Record<string, string>> = {
  'trace.ts': `
    export function trace(what: string): void {
      const http = process.moduleLoadList.includes('NativeModule http') ? 'http' : 'no http';
      process.stderr.write(what + ', ' + http + '\\n');
    }`,
  'main.ts': `
    import { trace } from './trace.ts';
    declare const __NMI_BUILD__: unknown;
    trace('main');
    async function main(): Promise<void> {
      if (process.argv[2] === 'stamp') console.log(JSON.stringify(__NMI_BUILD__));
      if (process.argv[2] !== 'lazy') return;
      const lazy = await import('./lazy.ts');
      lazy.throwReadably();
    }
    void main();`,
  'lazy.ts': `
    import { request } from 'node:http';
    import { Pool } from 'undici';
    import { trace } from './trace.ts';
    trace('lazy ' + typeof request + ' ' + typeof Pool);
    export function throwReadably(): never {
      throw new Error('planted');
    }`,
  'kube.ts': `
    import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
    console.log(typeof new KubeConfig().loadFromCluster);`,
  'waits.ts': 'export {};\nawait Promise.resolve();',
  'missing.ts': `import { nothing } from 'not-installed';\nnothing();`,
};

describe('the bundle', () => {
  let folder = '';

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-bundle-'));
    symlinkSync(join(repositoryRoot, 'node_modules'), join(folder, 'node_modules'));
    for (const [name, text] of Object.entries(sources)) writeFileSync(join(folder, name), text);
  });

  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  async function bundled(entry: string): Promise<string> {
    const script = join(folder, entry.replace('.ts', '.cjs'));
    writeFileSync(script, (await bundle(join(folder, entry), stamp)).script);
    return script;
  }

  function run(...args: readonly string[]): SpawnSyncReturns<string> {
    return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 });
  }

  it('runs a dynamically imported module, and loads its imports, only when it is reached', async () => {
    const script = await bundled('main.ts');
    assert.equal(run(script).stderr, 'main, no http\n');
    const [first, second] = run(script, 'lazy').stderr.split('\n');
    assert.equal(first, 'main, no http');
    assert.equal(second, 'lazy function function, http');
  });

  it('keeps the names of functions in stack traces', async () => {
    assert.match(run(await bundled('main.ts'), 'lazy').stderr, /\n {4}at .*\bthrowReadably \(/);
  });

  it('contains its build stamp', async () => {
    assert.equal(run(await bundled('main.ts'), 'stamp').stdout, `${JSON.stringify(stamp)}\n`);
  });

  it('leaves out the generated models of the Kubernetes client', async () => {
    const script = await bundled('kube.ts');
    const text = readFileSync(script, 'utf8');
    assert.ok(text.includes('class KubeConfig'));
    assert.ok(!text.includes('class V1PodSpec'));
    assert.equal(run(script).stdout, 'function\n');
  });

  it('is refused if an import would stay outside, or for a top-level await', async () => {
    await assert.rejects(bundle(join(folder, 'missing.ts'), stamp), /not-installed/);
    await assert.rejects(bundle(join(folder, 'waits.ts'), stamp), /top-level await/);
  });
});
