import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { askAgent } from '../../src/cli/agent-socket.ts';
import type { Io } from '../../src/cli/io.ts';

async function ask(answer?: RequestListener) {
  const folder = await mkdtemp(join(tmpdir(), 'nmi-socket-'));
  const path = join(folder, 'explain.sock');
  let stderr = '';
  const io: Io = {
    environment: { NMI_EXPLAIN_SOCKET: path },
    stdout: () => assert.fail('nothing is to be printed'),
    stderr: (text) => (stderr += text),
    stop: new AbortController().signal,
  };
  try {
    if (answer === undefined) return { reply: await askAgent(io, 'verb', '/x'), stderr };
    const server = createServer(answer).listen(path);
    await once(server, 'listening');
    try {
      return { reply: await askAgent(io, 'verb', '/x?y'), stderr };
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
    const { reply, stderr } = await ask((request, response) => {
      response.statusCode = 404;
      response.end(request.url);
    });
    assert.ok(typeof reply === 'object');
    assert.deepEqual([reply.status, reply.body, stderr], [404, '/x?y', '']);
  });

  it('reports that there is no socket', async () => {
    const { reply, stderr } = await ask();
    assert.equal(reply, 69);
    assert.match(
      stderr,
      /^nmi verb: no agent answers at .* \(ENOENT\): .* has another NMI_EXPLAIN_SOCKET\n$/,
    );
  });

  it('reports after 10 s that the agent did not answer', async (t) => {
    const late = new AbortController();
    const timeout = t.mock.method(AbortSignal, 'timeout', () => late.signal);
    const outcome = await ask(() => late.abort());
    assert.deepEqual(timeout.mock.calls[0]?.arguments, [10_000]);
    const stderr = 'nmi verb: the agent did not answer (ABORT_ERR)\n';
    assert.deepEqual(outcome, { reply: 1, stderr });
  });

  it('reports that the answer broke off', async () => {
    const outcome = await ask((request) => request.socket.destroy());
    const stderr = 'nmi verb: the agent did not answer (ECONNRESET)\n';
    assert.deepEqual(outcome, { reply: 1, stderr });
  });
});
