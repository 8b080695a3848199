/** The process of `kubectl nmi`, with a program in place of kubectl. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { repositoryRoot } from '../conventions/tree.ts';

const main = join(repositoryRoot, 'src/kubectl/main.ts');

describe('the process of kubectl nmi', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-plugin-'));
    await writeFile(join(folder, 'kubectl'), `#!/bin/sh\necho '{"items":[]}'\n`, { mode: 0o755 });
  });
  after(() => rm(folder, { recursive: true }));

  function run(words: readonly string[], input = '') {
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl') };
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], {
      cwd: folder,
      encoding: 'utf8',
      env,
      input,
    });
    return { status, stdout, stderr };
  }

  it('takes its own arguments, and exits with the code of the verb', () => {
    const help = run(['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /kubectl nmi explain/);
    const usage = run(['bogus']);
    assert.equal(usage.status, 2);
    assert.equal(usage.stdout, '');
    assert.match(usage.stderr, /^error: unknown verb/);
  });

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`exits with ${expected} after ${signal}`, async () => {
      const [slow, begun] = [join(folder, `slow-${signal}`), join(folder, `begun-${signal}`)];
      await writeFile(slow, '#!/bin/sh\n: >"$BEGUN"\nexec sleep 60\n', { mode: 0o755 });
      const child = spawn(process.execPath, [main, 'doctor'], {
        env: { PATH: process.env['PATH'], KUBECTL: slow, BEGUN: begun },
      });
      const exited = once(child, 'exit');
      while (!existsSync(begun)) await delay(20);
      child.kill(signal);
      assert.deepEqual(await exited, [expected, null]);
    });
  }

  it('ends quietly when its reader has closed the pipe', async () => {
    await writeFile(
      join(folder, 'unbound.yaml'),
      'kind: AzureIdentity\nmetadata: { name: orders }\n',
    );
    // The shell prints the exit code that its pipe hides.
    const script = `(${process.execPath} ${main} analyze -f unbound.yaml --exit-code; echo $? >&2) | true`;
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl') };
    const { stderr } = spawnSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8', env });
    assert.equal(stderr, '74\n', 'no error on the terminal, and no success');
  });

  it('does not succeed if its output is lost', () => {
    const script = `${process.execPath} ${main} reasons > /dev/full; echo $?`;
    const { stdout, stderr } = spawnSync('sh', ['-c', script], { cwd: folder, encoding: 'utf8' });
    assert.equal(stdout, '74\n');
    assert.match(stderr, /^error: the output cannot be written: ENOSPC: no space left on device/);
  });

  it('has colors on a terminal, and none elsewhere or with NO_COLOR', () => {
    const words = `${process.execPath} ${main} explian`;
    const onTerminal = (env: NodeJS.ProcessEnv) =>
      spawnSync('script', ['-qec', words, '/dev/null'], {
        cwd: folder,
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], TERM: 'xterm-256color', ...env },
      }).stdout.replaceAll('\u001b', 'ESC');
    assert.match(onTerminal({}), /ESC\[31merror:ESC\[39m unknown verb/);
    assert.match(onTerminal({ NO_COLOR: '1' }), /^error: unknown verb/);
    assert.match(onTerminal({ TERM: 'dumb' }), /^error: unknown verb/);
    assert.match(run(['explian']).stderr, /^error: unknown verb/);
  });

  it('shows what a login plugin of kubectl asks, and passes the answer on', async () => {
    // As kubectl with an exec plugin: a prompt, the answer from the terminal, then the output.
    await writeFile(
      join(folder, 'asking'),
      `#!/bin/sh\necho 'To sign in, enter the code ABC' >&2\nsleep 2\necho 'Error from server (Forbidden): no' >&2\nexit 1\n`,
      { mode: 0o755 },
    );
    const env = { PATH: process.env['PATH'], KUBECTL: join(folder, 'asking') };
    const { status, stderr } = spawnSync(process.execPath, [main, 'doctor'], {
      encoding: 'utf8',
      env,
    });
    assert.equal(status, 1);
    const lines = stderr.split('\n');
    assert.equal(lines[0], 'To sign in, enter the code ABC');
    assert.equal(lines.filter((line) => line.startsWith('To sign in')).length, 1, 'and once');
    assert.doesNotMatch(stderr, /^Error from server/m, 'that is kubectl’s own');
    assert.match(stderr, /^error: cannot reach/m);
  });

  it('reads a manifest from its input, or from a file that exists', () => {
    const manifest = 'kind: AzureIdentity\nmetadata: { name: orders, namespace: shop }\n';
    const { status, stdout } = run(['analyze', '-f', '-'], manifest);
    assert.equal(status, 1);
    assert.match(stdout, /AzureIdentity shop\/orders/);
    const missing = run(['analyze', '-f', 'none.yaml']);
    assert.equal(missing.status, 2);
    assert.match(missing.stderr, /none\.yaml/);
  });
});
