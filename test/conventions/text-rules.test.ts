import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { checkMachinePaths, checkRegistryHosts } from './text-rules.ts';
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
