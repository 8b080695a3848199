import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { bundlePlugin, bundleProgram } from '../../scripts/bundle.ts';
import { archives, bundledPackages, renderNotices } from '../../scripts/notices.ts';
import { repositoryRoot } from '../conventions/tree.ts';

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

describe('the notices of third parties', () => {
  let modules: readonly string[] = [];
  let listed: readonly string[] = [];
  let folder = '';

  before(async () => {
    const program = await bundleProgram(repositoryRoot, stamp);
    const plugin = await bundlePlugin(repositoryRoot, stamp);
    modules = [...program.modules, ...plugin.modules];
    const text = renderNotices(repositoryRoot, modules);
    listed = [...text.matchAll(/^- (.+?)(?: \d[\w.-]*)?: /gm)].map(([, name = '']) => name);
    folder = mkdtempSync(join(tmpdir(), 'nmi-test-notices-'));
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  it('name every package that the program depends on, and their dependencies in the bundle', () => {
    const manifest = readFileSync(join(repositoryRoot, 'package.json'), 'utf8');
    const { dependencies } = JSON.parse(manifest) as { dependencies: Record<string, string> };
    for (const name of Object.keys(dependencies)) assert.ok(listed.includes(name), name);
    const packages = bundledPackages(modules);
    assert.ok(packages.length > Object.keys(dependencies).length);
    for (const path of packages) {
      assert.ok(listed.includes(path.split('/node_modules/').at(-1) ?? ''), path);
    }
    assert.ok(listed.includes('Node.js'));
    assert.ok(listed.includes('rolldown'));
  });

  it('name every library that is linked into the addon', () => {
    const makefile = readFileSync(join(repositoryRoot, 'src/redirect/native/Makefile'), 'utf8');
    const linked = new Set([...makefile.matchAll(/-l:(lib\w+\.a)/g)].map(([, file = '']) => file));
    assert.deepEqual([...linked].toSorted(), Object.keys(archives).toSorted());
    for (const file of ['libbpf.a', 'libelf.a', 'libz.a']) {
      assert.ok(listed.includes(archives[file]?.name ?? ''), file);
    }
  });

  it('are not made for a package without a license', () => {
    const silent = join(folder, 'node_modules/silent');
    mkdirSync(silent, { recursive: true });
    writeFileSync(
      join(silent, 'package.json'),
      JSON.stringify({ name: 'silent', version: '1.0.0' }),
    );
    assert.throws(
      () => renderNotices(repositoryRoot, [join(silent, 'index.js')]),
      /silent has no licence/,
    );
  });
});
