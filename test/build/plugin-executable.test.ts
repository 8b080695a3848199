import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { describe, it } from 'node:test';
import { makePluginExecutable } from '../../scripts/plugin-executable.ts';

describe('the plugin as one executable', () => {
  it('runs without Node.js and kubectl, and gives a clear error', async () => {
    const path = await makePluginExecutable();
    const run = (...words: readonly string[]) =>
      spawnSync(path, words, {
        encoding: 'utf8',
        cwd: tmpdir(),
        env: { PATH: '/nowhere' },
        timeout: 30_000,
      });
    const help = run('explain', '--help');
    assert.equal(help.status, 0, help.stderr);
    assert.match(help.stdout, /^Examples:\n {2}kubectl nmi explain /m);
    const none = run('explain', 'pod', 'web', '-n', 'shop');
    assert.equal(none.status, 69);
    assert.equal(none.stdout, '');
    assert.match(none.stderr, /^error: .*the program kubectl is not on the PATH\n[^\n]+\n$/);
  });
});
