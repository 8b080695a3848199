import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { describe, it } from 'node:test';
import { Pool } from 'undici';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { createConnector } from '../../../../src/nmi/kube/api/connector.ts';
import { kubeErrorOfFailure } from '../../../../src/nmi/kube/api/kube-error.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import { countingClock, eventually } from './kube-test-bed.ts';
import { json, openTokenServer } from '../sources/entra/token-server.ts';

/** Listens, and never accepts a connection: once its queue is full the kernel drops every SYN. */
const deafServer = `
const server = require('node:net').createServer();
server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
  require('node:fs').writeSync(1, server.address().port + '\\n');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});`;

interface DeafServer extends AsyncDisposable {
  readonly origin: string;
}

async function openDeafServer(): Promise<DeafServer> {
  const child: ChildProcess = spawn(process.execPath, ['-e', deafServer], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string];
  const fillers: Socket[] = [];
  for (let at = 0; at < 2; at += 1) {
    const filler = connect(Number(line), '127.0.0.1');
    fillers.push(filler);
    await once(filler, 'connect');
  }
  return {
    origin: `http://127.0.0.1:${line}`,
    async [Symbol.asyncDispose]() {
      for (const filler of fillers) filler.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

function poolOf(origin: string, tcpTimeoutMs: number, clock = systemClock): Pool {
  const timeouts = { tcpTimeoutMs, connectTimeoutMs: 2000 };
  return new Pool(origin, {
    connections: 1,
    connect: createConnector({ clock, tls: { rejectUnauthorized: false }, ...timeouts }),
  });
}

async function codeOf(pool: Pool): Promise<string> {
  try {
    const { body } = await pool.request({ method: 'GET', path: '/' });
    await body.dump();
    return 'answered';
  } catch (error) {
    return kubeErrorOfFailure(error).code;
  }
}

describe('a connection to the API server', () => {
  it('fails soon when the server does not answer the SYN', async () => {
    await using server = await openDeafServer();
    const clock = countingClock();
    const pool = poolOf(server.origin, 150, clock);
    using time = new OwnTime();
    const startMs = performance.now();
    assert.equal(await codeOf(pool), 'TIMEOUT');
    const [tookMs, ownMs] = [performance.now() - startMs, time.nowMs()];
    assert.ok(tookMs >= 140 && ownMs < 900, `${ownMs} ms, and the kernel repeats after 1000`);
    assert.equal(clock.armed, 0);
    await pool.destroy();
  });

  it('has much longer for TLS than for TCP', async () => {
    const sockets = new Set<Socket>();
    const mute = createServer((socket) => sockets.add(socket.on('error', () => undefined)));
    mute.listen(0, '127.0.0.1');
    await once(mute, 'listening');
    const { port } = mute.address() as AddressInfo;
    const pool = poolOf(`https://127.0.0.1:${port}`, 1000);
    const startMs = performance.now();
    assert.equal(await codeOf(pool), 'TIMEOUT');
    assert.ok(performance.now() - startMs >= 1900);
    for (const socket of sockets) socket.destroy();
    mute.close();
    await pool.destroy();
  });

  it('is HTTP/1.1 even if the server offers HTTP/2', async () => {
    // This one offers it without supporting it.
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    const pool = poolOf(server.authority, 2000);
    assert.equal(await codeOf(pool), 'answered');
    await pool.destroy();
  });

  it('goes to the usual port if the URL has none', async () => {
    const timeouts = { tcpTimeoutMs: 1_000, connectTimeoutMs: 1_000 };
    const connector = createConnector({ clock: systemClock, tls: {}, ...timeouts });
    const portFor = (protocol: string) =>
      new Promise((resolve) => {
        connector({ hostname: '127.83.4.9', host: '', protocol, port: '' }, (error, socket) => {
          // As a rule nobody listens there.
          resolve(socket?.remotePort ?? (error as { readonly port?: unknown }).port);
          socket?.destroy();
        });
      });
    assert.deepEqual([await portFor('https:'), await portFor('http:')], [443, 80]);
  });

  it('that is refused fails at once and leaves nothing behind', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const clock = countingClock();
    for (const origin of [`http://127.0.0.1:${port}`, `https://127.0.0.1:${port}`]) {
      const pool = poolOf(origin, 1000, clock);
      assert.equal(await codeOf(pool), 'NETWORK');
      await pool.destroy();
    }
    assert.equal(clock.armed, 0);
    const sockets = (): number =>
      process.getActiveResourcesInfo().filter((kind) => kind.startsWith('TCP')).length;
    await eventually('no socket is left', () => sockets() === 0);
  });
});
