import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import {
  checkMachinePaths,
  checkPatterns,
  checkRegistryHosts,
  checkVersions,
} from './text-rules.ts';
import { repositoryFiles, repositoryRoot } from './tree.ts';

const repository = repositoryFiles();

describe('paths of one machine', () => {
  it('are in no file of the repository', () => {
    assert.deepEqual(checkMachinePaths(repository, repositoryRoot), []);
  });

  // Assembled at run time, otherwise this file would be found.
  const refused = [
    ['', 'home', 'alice', 'code'].join('/'),
    ['', 'Users', 'Alice', 'code'].join('/'),
    ['', 'root', '.npm'].join('/'),
    '/srv/clones/entra/src',
  ];
  for (const path of refused) {
    it(`are found: ${path}`, () => {
      const planted = [{ path: 'src/a.ts', text: `\nconst x = '${path}';` }];
      assert.equal(checkMachinePaths(planted, '/srv/clones/entra').length, 1);
    });
  }

  it('are not confused with paths of containers and of the kernel', () => {
    const text = ['/home/nonroot/app', '/rootfs/x', '/var/run/secrets', '/proc/self/root'].join(
      ' ',
    );
    assert.deepEqual(checkMachinePaths([{ path: 'a', text }], '/srv/clones/entra'), []);
  });
});

describe('registry hosts', () => {
  it('are in no file of the repository', () => {
    assert.deepEqual(checkRegistryHosts(repository), []);
  });

  it('are found, and so is a lock file with download sources', () => {
    const host = ['registry', 'npmjs', 'org'].join('.');
    const planted = [
      { path: 'deploy/Dockerfile', text: `RUN npm config set registry https://${host}/` },
      { path: 'some/package-lock.json', text: '{\n"resolved": "https://example.com/x.tgz"}' },
      { path: 'README.md', text: 'a registry of flags' },
    ];
    assert.deepEqual(checkRegistryHosts(planted), [
      'deploy/Dockerfile:1 names the host of a registry',
      'some/package-lock.json:2 names where a package was fetched',
    ]);
  });
});

describe('regular expressions of the product', () => {
  it('do not backtrack', () => {
    assert.deepEqual(checkPatterns(repository), []);
    const text = [
      'text.replace(/\\/+$/, "");',
      'text.match(/(?:[a-z]+)+x/);',
      'text.match(/^\\/+$/);',
      'text.match(/[+*]$/);',
      'text.match(/a{1,3}$/);',
    ].join('\n');
    assert.deepEqual(checkPatterns([{ path: 'src/a.ts', text }]), [
      'src/a.ts backtracks: /\\/+$/',
      'src/a.ts backtracks: /(?:[a-z]+)+x/',
    ]);
  });
});

describe('versions of packages', () => {
  const textOf = (path: string): string =>
    repository.find((file) => file.path === path)?.text ?? '';

  it('are exact', () => {
    for (const manifest of ['package.json', 'toolchain/package.json']) {
      assert.deepEqual(checkVersions(textOf(manifest)), []);
    }
    const planted = {
      dependencies: { exact: '1.2.3', '@scope/caret': '^1.2.3' },
      devDependencies: { tag: 'latest' },
      optionalDependencies: { place: 'file:../place' },
    };
    assert.deepEqual(checkVersions(JSON.stringify(planted)), [
      '@scope/caret is not pinned: ^1.2.3',
      'tag is not pinned: latest',
      'place is not pinned: file:../place',
    ]);
  });

  it('include one of Node for all architectures, and each is locked with its digest', () => {
    const { packages } = JSON.parse(textOf('toolchain/package-lock.json')) as {
      packages: Record<string, { version: string; integrity: string }>;
    };
    const nodes = ['arm64', 'x64'].map((arch) => packages[`node_modules/node-linux-${arch}`]);
    assert.equal(new Set(nodes.map((node) => node?.version)).size, 1);
    for (const locked of [...nodes, packages['node_modules/npm']]) {
      assert.match(locked?.integrity ?? '', /^sha512-/);
    }
  });
});
