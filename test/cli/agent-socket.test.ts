import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askAgent, type SocketReply } from '../../src/cli/agent-socket.ts';

async function ask(answer?: RequestListener): Promise<SocketReply> {
  const folder = await mkdtemp(join(tmpdir(), 'nmi-socket-'));
  const path = join(folder, 'explain.sock');
  try {
    if (answer === undefined) return await askAgent(path, '/x');
    const server = createServer(answer).listen(path);
    await once(server, 'listening');
    try {
      return await askAgent(path, '/x?y');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('a request to the local agent', () => {
  it('returns the answer unchanged', async () => {
    const reply = await ask((request, response) => {
      response.statusCode = 404;
      response.end(request.url);
    });
    assert.deepEqual(reply, { kind: 'answered', status: 404, body: '/x?y' });
  });

  it('reports that there is no socket', async () => {
    const reply = await ask();
    assert.ok(reply.kind === 'unavailable');
    assert.match(reply.problem, /^there is no socket .* has another NMI_EXPLAIN_SOCKET$/);
  });

  it('reports after 10 s that the agent did not answer', async (t) => {
    const late = new AbortController();
    const timeout = t.mock.method(AbortSignal, 'timeout', () => late.signal);
    const reply = await ask(() => late.abort());
    assert.deepEqual(timeout.mock.calls[0]?.arguments, [10_000]);
    assert.deepEqual(reply, { kind: 'failed', problem: 'the agent did not answer in 10 s' });
  });

  it('reports that the answer broke off', async () => {
    const reply = await ask((request) => request.socket.destroy());
    assert.deepEqual(reply, {
      kind: 'failed',
      problem: "the agent's answer broke off: ECONNRESET",
    });
  });
});
