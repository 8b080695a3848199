import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Io } from '../../src/cli/io.ts';
import { applyChoice, redirect, reportRemoval } from '../../src/cli/redirect.ts';
import { noRedirect } from '../../src/redirect/none.ts';
import type { Redirect, RedirectStatus } from '../../src/redirect/redirect.ts';

async function record(act: (io: Io) => number | Promise<number>, stop = AbortSignal.abort()) {
  let stdout = '';
  let stderr = '';
  const code = await act({
    environment: {},
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    stop,
  });
  return { code, stdout, stderr };
}

const run = (
  rest: readonly string[],
  flags: Readonly<Record<string, string>> = {},
  stop?: AbortSignal,
) => record((io) => redirect({ rest, flags: { redirect: 'none', ...flags } }, io), stop);

describe('nmi redirect', () => {
  it('ends with 2 on wrong usage, and names what is allowed', async () => {
    const flags = await run(['verify'], { 'nmi-port': 'x', nope: '1' });
    assert.equal(flags.code, 2);
    assert.equal(flags.stderr.trim().split('\n').length, 2);
  });

  it('reports what is installed, with a mode that is off', async () => {
    for (const action of ['install', 'verify']) {
      const { code, stdout, stderr } = await run([action], { enableProfile: 'true' });
      assert.equal(code, 0);
      assert.match(stdout, /^none: off \(.*\)\n {2}why this one: chosen by --redirect\n/);
      assert.match(stderr, /^nmi redirect: warning: --enableProfile has no effect/);
    }
  });

  it('guards the boot of the host, takes the guard back, and names a folder that it cannot write to', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-guard-boot-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const flags = { 'boot-guard-folder': folder };
    assert.equal((await run(['guard-boot'], flags)).code, 0);
    assert.ok(existsSync(join(folder, 'nmi-guard.service')));
    assert.equal((await run(['unguard-boot'], flags)).code, 0);
    assert.ok(!existsSync(join(folder, 'nmi-guard.service')));
    const refused = await run(['guard-boot'], { 'boot-guard-folder': join(folder, 'missing') });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /write nmi-guard\.service in .*missing: ENOENT/);
    const unnamed = await run(['guard-boot']);
    assert.equal(unnamed.code, 2);
    assert.match(unnamed.stderr, /--boot-guard-folder is missing/);
  });

  it('prepares the kernel for an installation, and not to verify one', async () => {
    const calls: string[] = [];
    const status: RedirectStatus = { state: 'active', detail: 'x', problems: [] };
    const mode: Redirect = {
      ...noRedirect(),
      prepare: () => Promise.resolve(void calls.push('prepare')),
      install: () => Promise.resolve((calls.push('install'), status)),
      verify: () => Promise.resolve((calls.push('verify'), status)),
    };
    const choice = { redirect: mode, why: 'chosen by --redirect' };
    await record((io) => applyChoice(true, choice, io));
    assert.deepEqual(calls, ['prepare', 'install']);
    await record((io) => applyChoice(false, choice, io));
    assert.deepEqual(calls.slice(2), ['verify']);
  });

  it('does not remove the redirect that another container maintains', async () => {
    const { code, stdout, stderr } = await run(['remove'], { redirect: 'pinned' });
    assert.deepEqual([code, stdout], [69, '']);
    assert.match(stderr, /NOT_PERMITTED: pinned: `nmi redirect run` maintains it/);
  });

  it('fails to remove what an agent has pinned again, and names it', async () => {
    const report = (left: readonly string[]) => record((io) => reportRemoval(left, '/pins', io));
    const again = await report(['connect4', 'callers']);
    assert.deepEqual([again.code, again.stdout], [1, '']);
    assert.match(again.stderr, /still pinned: connect4, callers in \/pins; an agent that runs/);
    const removed = await report([]);
    assert.deepEqual([removed.code, removed.stderr], [0, '']);
    assert.match(removed.stdout, /^removed: /);
  });

  it('ends with the reason when it cannot maintain the redirect', async (t) => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    t.after(() => taken.close());
    const { port } = taken.address() as AddressInfo;
    const flags = { 'http-probe-port': String(port) };
    const { code, stdout, stderr } = await run(['run'], flags);
    assert.equal(code, 69);
    assert.match(stdout, /redirect cannot be maintained/);
    assert.match(stderr, new RegExp(`${port}`));
  });

  it('maintains the redirect until it is stopped, and leaves it installed', async () => {
    const stop = new AbortController();
    let isOver = false;
    const ended = run(['run'], {}, stop.signal).finally(() => (isOver = true));
    await delay(100);
    assert.equal(isOver, false);
    stop.abort();
    const { code, stdout } = await ended;
    assert.equal(code, 0);
    assert.match(stdout, /shutting down, redirect stays installed/);
  });
});
