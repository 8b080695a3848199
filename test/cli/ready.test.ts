import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ready } from '../../src/cli/ready.ts';
import type { Readiness } from '../../src/nmi/base/readiness.ts';
import { openExplainServer } from '../../src/nmi/explain/socket.ts';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-ready-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function run(NMI_EXPLAIN_SOCKET: string) {
  let [stdout, stderr] = ['', ''];
  const code = await ready({
    environment: { NMI_EXPLAIN_SOCKET },
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    stop: AbortSignal.abort(),
  });
  return { code, stdout, stderr };
}

describe('nmi ready', () => {
  it('reports what the agent in the same container lacks, until nothing is missing', async () => {
    const path = join(folder, 'agent.sock');
    let state: Readiness = { ready: false, missing: { redirect: 'absent', watches: 'pods' } };
    const ignore = () => undefined;
    await using _server = await openExplainServer({
      path,
      explain: () => assert.fail('not asked'),
      ready: () => state,
      log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
    });
    const missing = 'nmi ready: redirect: absent; watches: pods\n';
    assert.deepEqual(await run(path), { code: 1, stdout: '', stderr: missing });
    state = { ready: true, missing: {} };
    assert.deepEqual(await run(path), { code: 0, stdout: 'ready\n', stderr: '' });
  });

  it('fails if no agent runs, or none can be reached', async () => {
    const nobody = await run(join(folder, 'none.sock'));
    assert.equal(nobody.code, 69);
    assert.match(nobody.stderr, /no agent answers at/);
    const off = await run('off');
    assert.deepEqual([off.code, off.stdout], [2, '']);
    assert.match(off.stderr, /NMI_EXPLAIN_SOCKET is off/);
  });
});
