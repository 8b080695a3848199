/** What a release names: the pinned Debian, the newest Node, third parties and their licenses. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { bundlePlugin, bundleProgram } from '../../../scripts/bundle.ts';
import { findUnpinned, pinFile, readIndexes, readPin } from '../../../scripts/image/debian-pin.ts';
import { componentOfStanza, npmComponent, renderSbom } from '../../../scripts/image/sbom.ts';
import { newestRelease } from '../../../scripts/newest-node.ts';
import { archives, bundledPackages, renderNotices } from '../../../scripts/notices.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nmi-test-release-'));
  mkdirSync(dirname(join(folder, pinFile)), { recursive: true });
});
after(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('the pinned Debian', () => {
  const [digest, other] = ['a'.repeat(64), 'b'.repeat(64)];
  const indexes = { trixie: digest, 'trixie-updates': digest };
  const pin = { snapshot: '20261129T000000Z', indexes };

  it('is complete, or there is none', () => {
    assert.throws(() => readPin(folder), /debian-pin\.json is missing: run \.\/dev release pin/);
    for (const wrong of [
      {},
      { snapshot: pin.snapshot },
      { ...pin, snapshot: '../trixie' },
      { ...pin, indexes: {} },
      { ...pin, indexes: { trixie: 'a' } },
    ]) {
      writeFileSync(join(folder, pinFile), JSON.stringify(wrong));
      assert.throws(() => readPin(folder), /has no snapshot or no indexes/, JSON.stringify(wrong));
    }
    writeFileSync(join(folder, pinFile), JSON.stringify(pin));
    assert.deepEqual(readPin(folder), pin);
  });

  it('is another one if an index is another one, is missing or is new', () => {
    for (const [found, unpinned] of [
      [indexes, undefined],
      [{ ...indexes, trixie: other }, 'trixie'],
      [{ trixie: digest }, 'trixie-updates'],
      [{ ...indexes, backports: digest }, 'backports'],
    ] as const) {
      assert.equal(findUnpinned(pin, found), unpinned);
    }
  });

  it('is read from what apt has verified', () => {
    assert.throws(() => readIndexes(folder), /apt has no signed index/);
    const content = 'Origin: Debian\nSuite: stable\nCodename: trixie\n';
    writeFileSync(join(folder, 'mirror.example_debian_dists_stable_InRelease'), content);
    assert.deepEqual(Object.keys(readIndexes(folder)), ['trixie']);
  });
});

it('the newest Node is of the same major version, by number, for both processors, and none before ours', () => {
  const published = ['26.9.1', '26.10.0', '26.10.2', '26.10.11', '27.0.0', '26.11.0-rc.1'];
  for (const [ours, mirrors, newest] of [
    ['26.10.0', [published, published], '26.10.11'],
    ['26.9.1', [[...published, '26.11.0']], '26.11.0'],
    ['26.10.11', [['26.10.0', '26.10.11']], '26.10.11'],
    ['26.10.11', [['26.10.0', '27.1.0']], '26.10.11'],
    ['26.10.0', [['26.10.0', '26.12.0'], ['26.10.0', '26.12.1']], '26.10.0'], // prettier-ignore
  ] as const) {
    assert.equal(newestRelease(ours, mirrors), newest);
  }
});

it('the native module is built by clang too, which needs no gcc of another architecture', () => {
  const sources = join(repositoryRoot, 'src/redirect/native');
  const headers = join(process.execPath, '../../include/node');
  const words = ['-C', sources, `OUT=${folder}/clang`, `NODE_INCLUDE=${headers}`, 'CC=clang'];
  mkdirSync(join(folder, 'clang'));
  const { status, stderr } = spawnSync('make', words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});

describe('the notices of third parties', () => {
  let modules: readonly string[] = [];
  let listed: readonly string[] = [];
  before(async () => {
    const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };
    const program = await bundleProgram(repositoryRoot, stamp);
    const plugin = await bundlePlugin(repositoryRoot, stamp);
    modules = [...program.modules, ...plugin.modules];
    const text = renderNotices(repositoryRoot, modules);
    listed = [...text.matchAll(/^- (.+?)(?: \d[\w.-]*)?: /gm)].map(([, name = '']) => name);
  });

  it('name every package that the program depends on, their dependencies in the bundle, and linked libraries', () => {
    const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');
    const { dependencies } = JSON.parse(read('package.json')) as { dependencies: object };
    const packages = bundledPackages(modules);
    assert.ok(packages.length > Object.keys(dependencies).length);
    const linked = read('src/redirect/native/Makefile').matchAll(/-l:(lib\w+\.a)/g);
    const files = new Set([...linked].map(([, file = '']) => file));
    assert.deepEqual([...files].toSorted(), Object.keys(archives).toSorted());
    for (const name of [
      ...Object.keys(dependencies),
      ...packages.map((path) => path.split('/node_modules/').at(-1)),
      ...['libbpf.a', 'libelf.a', 'libz.a'].map((file) => archives[file]?.name),
      'Node.js',
      'rolldown',
    ]) {
      assert.ok(listed.includes(String(name)), String(name));
    }
  });

  it('are not made for a package without a license', () => {
    const silent = join(folder, 'node_modules/silent');
    mkdirSync(silent, { recursive: true });
    writeFileSync(join(silent, 'package.json'), '{"name":"silent","version":"1.0.0"}');
    const render = () => renderNotices(repositoryRoot, [join(silent, 'index.js')]);
    assert.throws(render, /silent has no licence/);
  });
});

describe('the bill of materials', () => {
  it('names packages in the form that scanners use, in any order', () => {
    const version = '1:14.2.0-19+b1';
    const stanza = `Package: libstdc++6\nStatus: install ok installed\nVersion: ${version}\nArchitecture: arm64\n`;
    const debian = componentOfStanza(stanza, 'trixie');
    const purl = 'pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19%2Bb1?arch=arm64&distro=trixie';
    assert.deepEqual(debian, { name: 'libstdc++6', version, purl });
    const content = Buffer.from('digest');
    const integrity = `sha512-${content.toString('base64')}`;
    const locked = { version: '2.0.0', license: 'MIT', integrity };
    const lock = { packages: { 'node_modules/@a/b': locked } };
    const npm = npmComponent(lock, 'node_modules/@a/b');
    assert.deepEqual(npm, {
      name: '@a/b',
      version: '2.0.0',
      purl: 'pkg:npm/%40a/b@2.0.0',
      license: 'MIT',
      hash: { alg: 'SHA-512', content: content.toString('hex') },
    });
    assert.throws(() => npmComponent(lock, 'node_modules/c'), /has no node_modules\/c/);
    assert.ok(debian !== undefined);
    const facts = { version: '1.2.3', created: '2026-01-02T03:04:05Z', architecture: 'arm64' };
    assert.equal(renderSbom(facts, [debian, npm]), renderSbom(facts, [npm, debian]));
  });
});
