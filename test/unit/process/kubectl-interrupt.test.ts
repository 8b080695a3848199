/** Ctrl-C in `kubectl nmi test`, and its end by SIGTERM: the pod that it created must not stay. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { repositoryRoot } from '../../conventions/tree.ts';

const main = join(repositoryRoot, 'src/kubectl/main.ts');

/** It notes what it did. The pod of the test stays Pending; creating it takes a second. */
const kubectl = `#!/bin/sh
echo "$1 begins" >>"$LOG"
case "$1 $2" in
  'create '*) cat >/dev/null; sleep 1 ;;
  'get pods') echo '{"metadata":{"name":"web","labels":{"aadpodidbinding":"orders"}},"spec":{"serviceAccountName":"robot"},"status":{"phase":"Pending"}}' ;;
  'delete '*) sleep 0.2; [ -z "$STUCK" ] || { echo 'Unable to connect to the server: EOF' >&2; exit 1; } ;;
esac
echo "$1 ends" >>"$LOG"
`;

describe('kubectl nmi test that is interrupted', { timeout: 600_000 }, () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-test-'));
    await writeFile(join(folder, 'kubectl'), kubectl, { mode: 0o755 });
  });
  after(() => rm(folder, { recursive: true }));

  /** @param when the line of the log after which the signal comes. */
  async function interrupt(signal: NodeJS.Signals, when: string, env: NodeJS.ProcessEnv = {}) {
    const log = join(folder, `${signal}-${when.replace(' ', '-')}${env['STUCK'] ?? ''}.log`);
    await writeFile(log, '');
    const linesOf = async () => (await readFile(log, 'utf8')).trim().split('\n');
    const words = ['test', '--pod', 'web', '-n', 'shop', '--image', 'agent:1'];
    const child = spawn(process.execPath, [main, ...words], {
      env: { ...env, PATH: process.env['PATH'], KUBECTL: join(folder, 'kubectl'), LOG: log },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A group of its own, as a terminal makes one: its Ctrl-C goes to every process of it.
      detached: true,
    });
    const exited = once(child, 'exit') as Promise<[number | null]>;
    const [said, shown] = [text(child.stderr), text(child.stdout)];
    while (!(await linesOf()).includes(when)) await delay(20);
    assert.ok(child.pid !== undefined);
    const target = signal === 'SIGINT' ? -child.pid : child.pid;
    process.kill(target, signal);
    // An impatient user.
    await delay(50);
    if (child.exitCode === null) process.kill(target, signal);
    const [code] = await exited;
    return { code, lines: await linesOf(), stderr: await said, stdout: await shown };
  }

  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    for (const when of ['create begins', 'create ends']) {
      it(`deletes its pod on ${signal} when ${when}`, async () => {
        const { code, lines: all, stderr, stdout } = await interrupt(signal, when);
        // A read that has begun ends at any time.
        const lines = all.filter((line) => !line.startsWith('get '));
        assert.equal(code, expected);
        const created = lines.indexOf('create ends');
        assert.ok(created >= 0, lines.join(', '));
        assert.deepEqual(lines.slice(-2), ['delete begins', 'delete ends']);
        assert.ok(created < lines.indexOf('delete begins'));
        assert.match(stderr, /^pod nmi-test-\w+ is created in .*\nerror: interrupted\n$/);
        assert.equal(stdout, '');
      });
    }
  }

  it('says which pod it could not delete', async () => {
    const { stderr } = await interrupt('SIGINT', 'create ends', { STUCK: 'yes' });
    assert.match(
      stderr,
      /^pod .*\nwarning: pod shop\/(nmi-test-\w+) is left behind\. Delete it: kubectl delete pods --namespace=shop \1\nerror: interrupted\n$/,
    );
  });
});
