/** The plugin as users run it: the built script as a process. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { freshExecutable, repositoryRoot } from '../../scripts/build.ts';

const script = join(repositoryRoot, 'dist/kubectl-nmi');

function run(words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...words], {
    encoding: 'utf8',
    env: { PATH: '/nowhere', ...env },
  });
  return { status, stdout, stderr };
}

describe('dist/kubectl-nmi', () => {
  before(async () => {
    await freshExecutable();
  });

  it('is one script without native code, packaged for npm', () => {
    const text = readFileSync(script, 'utf8');
    assert.match(text, /^#!\/usr\/bin\/env node\n\(function/, 'the check of the version of Node');
    assert.doesNotMatch(text, /\.node['"]|dlopen/);
    const manifest = JSON.parse(
      readFileSync(join(repositoryRoot, 'dist/package.json'), 'utf8'),
    ) as {
      bin: Readonly<Record<string, string>>;
      version: string;
    };
    assert.equal(manifest.bin['kubectl-nmi'], 'kubectl-nmi');
    assert.match(manifest.version, /^\d+\.\d+\.\d+/);
  });

  it('prints help, and one clear line for a machine without kubectl', () => {
    const help = run(['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /explain/);
    const none = run(['explain', 'pod', 'web', '-n', 'shop']);
    assert.equal(none.status, 69);
    assert.equal(none.stdout, '');
    assert.match(
      none.stderr,
      /^error: cannot get pod shop\/web: the program kubectl is not on the PATH\n[^\n]+\n$/,
    );
  });

  it('exits with 2 for a usage error, and shows no stack', () => {
    for (const words of [
      [],
      ['bogus'],
      ['explain', '--bogus'],
      ['explain', 'pod', 'x', '-o', 'xml'],
    ]) {
      const { status, stderr } = run(words);
      assert.equal(status, 2, words.join(' '));
      assert.doesNotMatch(stderr, /\n\s+at /);
    }
  });
});
