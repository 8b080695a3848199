import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { checkReasons, checkVersions } from './packages.ts';
import { repositoryFiles } from './tree.ts';

const texts = new Map(repositoryFiles().map(({ path, text }) => [path, text]));
const manifests = ['package.json', 'toolchain/package.json'].map((path) => texts.get(path) ?? '');

interface ToolchainLock {
  readonly packages: Readonly<
    Record<string, { readonly version: string; readonly integrity: string }>
  >;
}

const planted = JSON.stringify({
  dependencies: { exact: '1.2.3', '@scope/caret': '^1.2.3' },
  devDependencies: { tag: 'latest' },
  optionalDependencies: { place: 'file:../place' },
});

describe('versions of packages', () => {
  it('are exact', () => {
    assert.deepEqual(manifests.flatMap(checkVersions), []);
  });

  it('include one of Node for all architectures, and each is locked with its digest', () => {
    const lock = JSON.parse(texts.get('toolchain/package-lock.json') ?? '') as ToolchainLock;
    const nodes = ['arm64', 'x64'].map((arch) => lock.packages[`node_modules/node-linux-${arch}`]);
    assert.equal(new Set(nodes.map((node) => node?.version)).size, 1);
    for (const locked of [...nodes, lock.packages['node_modules/npm']]) {
      assert.match(locked?.integrity ?? '', /^sha512-/);
    }
  });

  it('are refused as a range, a tag or a location', () => {
    assert.deepEqual(checkVersions(planted), [
      '@scope/caret is not pinned: ^1.2.3',
      'tag is not pinned: latest',
      'place is not pinned: file:../place',
    ]);
  });
});

describe('the list of packages in CONTRIBUTING.md', () => {
  it('has a line for every package', () => {
    const page = texts.get('CONTRIBUTING.md');
    assert.deepEqual(
      manifests.flatMap((manifest) => checkReasons(manifest, page)),
      [],
    );
  });

  it('is reported when the file or the heading is missing', () => {
    assert.deepEqual(checkReasons(planted, undefined), ['CONTRIBUTING.md is missing']);
    assert.deepEqual(checkReasons(planted, '# Nothing'), [
      'CONTRIBUTING.md has no heading "Packages"',
    ]);
  });

  it('is reported for a package that is only mentioned elsewhere', () => {
    const page = [
      '# Project',
      '- `tag` does this',
      '## Packages',
      'We like `place`.',
      '| `exact` | why |',
      '- `@scope/caret`: why',
      '## After',
      '- `place`',
    ];
    assert.deepEqual(checkReasons(planted, page.join('\n')), [
      'CONTRIBUTING.md has no line for `tag` under "Packages"',
      'CONTRIBUTING.md has no line for `place` under "Packages"',
    ]);
  });
});
