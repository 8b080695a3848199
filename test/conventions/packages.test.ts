import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { checkReadme, checkVersions } from './packages.ts';
import { repositoryFiles } from './tree.ts';

const texts = new Map(repositoryFiles().map(({ path, text }) => [path, text]));
const packageJson = texts.get('package.json') ?? '';

const planted = JSON.stringify({
  dependencies: { exact: '1.2.3', '@scope/caret': '^1.2.3' },
  devDependencies: { tag: 'latest' },
  optionalDependencies: { place: 'file:../place' },
});

describe('versions of packages', () => {
  it('are exact', () => {
    assert.deepEqual(checkVersions(packageJson), []);
  });

  it('are refused as a range, a tag or a place', () => {
    assert.deepEqual(checkVersions(planted), [
      '@scope/caret is not pinned: ^1.2.3',
      'tag is not pinned: latest',
      'place is not pinned: file:../place',
    ]);
  });
});

describe('the list of packages in the README', () => {
  it('has a line for every package', () => {
    assert.deepEqual(checkReadme(packageJson, texts.get('README.md')), []);
  });

  it('is missed when the file or the heading is not there', () => {
    assert.deepEqual(checkReadme(planted, undefined), ['README.md is missing']);
    assert.deepEqual(checkReadme(planted, '# Nothing'), ['README.md has no heading "Packages"']);
  });

  it('is missed for a package that is only mentioned elsewhere', () => {
    const readme = [
      '# Project',
      '- `tag` does this',
      '## Packages',
      'We like `place`.',
      '| `exact` | why |',
      '- `@scope/caret`: why',
      '## After',
      '- `place`',
    ];
    assert.deepEqual(checkReadme(planted, readme.join('\n')), [
      'README.md has no line for `tag` under "Packages"',
      'README.md has no line for `place` under "Packages"',
    ]);
  });
});
