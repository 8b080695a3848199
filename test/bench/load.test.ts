/**
 * The load program against servers that misbehave on purpose: its report must match what happened.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { createLabIdentity } from '../../lab/fakes/identity.ts';
import { createTokenSigner } from '../../lab/fakes/token.ts';
import { Histogram } from '../../bench/core/histogram.ts';
import type { LoadPlan, LoadReport } from '../../bench/load/plan.ts';
import { runLoad } from '../../bench/fixture/run-load.ts';

async function load(
  listener: RequestListener,
  plan: Partial<LoadPlan>,
): Promise<{ readonly report: LoadReport; readonly requests: number }> {
  let requests = 0;
  const server = createServer((request, response) => {
    requests += 1;
    listener(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  try {
    const report = await runLoad({
      host: '127.0.0.1',
      port,
      connections: 4,
      kind: 'keep',
      warmUpMs: 100,
      measuredMs: 400,
      callers: [{ target: '/', expect: { kind: 'status', statuses: [200] } }],
      serverPids: [process.pid],
      ...plan,
    });
    return { report, requests };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe('the load program', { timeout: 60_000 }, () => {
  it('counts right answers, their latency and the CPU of the server', async () => {
    for (const kind of ['keep', 'new'] as const) {
      const { report, requests } = await load(
        (_, response) => {
          response.end('x');
        },
        { kind },
      );
      assert.equal(report.firstFailure, undefined);
      assert.ok(report.answers > 0 && report.answers <= requests);
      assert.equal(Histogram.from(report.latency).count, report.answers);
      assert.ok((report.cpuMsPer1000 ?? 0) > 0);
    }
  });

  it('leaves it to the server to close a connection first, so no port stays in use', async () => {
    const body = 'x';
    const answer = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    let before: Socket | undefined;
    // Not the server of `load`: this one closes a connection when the next request arrives.
    const server = createTcpServer((socket) => {
      socket.on('data', () => {
        before?.destroy();
        before = socket;
        socket.write(answer);
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const report = await runLoad({
      ...{ host: '127.0.0.1', port, connections: 1, kind: 'new', warmUpMs: 0, measuredMs: 500 },
      callers: [
        { target: '/', sourceIp: '127.0.7.7', expect: { kind: 'status', statuses: [200] } },
      ],
      serverPids: [process.pid],
    });
    before?.destroy();
    server.close();
    assert.equal(report.firstFailure, undefined);
    // Each but the last leaves a port in use where the load closes first.
    assert.ok(report.answers > 2, `${report.answers} answers`);
    const peer = port.toString(16).toUpperCase().padStart(4, '0');
    const inUse = new RegExp(` 0707007F:\\w+ 0100007F:${peer} 06 `, 'g');
    const waiting = readFileSync('/proc/net/tcp', 'latin1').match(inUse) ?? [];
    // The end of the load cuts its last connection.
    assert.ok(waiting.length <= 1, `${waiting.length} of ${report.answers} ports stay in use`);
  });

  it('counts wrong answers and lost connections as failures', async () => {
    const wrong = await load((_, response) => void response.writeHead(500).end('x'), {});
    assert.equal(wrong.report.answers, 0);
    assert.match(wrong.report.firstFailure ?? '', /status 500/);
    const lost = await load((request) => void request.socket.destroy(), {});
    assert.equal(lost.report.answers, 0);
    assert.ok(lost.report.failures > 0);
  });

  it('counts latency from when a request was due, however late it could be sent', async () => {
    let isFirst = true;
    const { report } = await load(
      (_, response) => {
        setTimeout(() => response.end('x'), isFirst ? 300 : 0);
        isFirst = false;
      },
      // One connection, which the first request occupies for 300 ms while others fall due.
      { connections: 1, ratePerSec: 100, warmUpMs: 0, measuredMs: 600 },
    );
    assert.equal(report.firstFailure, undefined);
    assert.ok(report.answers >= 30 && report.answers <= 61, `${report.answers} answers`);
    // A third of them fell due in the first 200 ms of that time. Counted from when they were sent,
    // only one would be late.
    assert.ok(Histogram.from(report.latency).percentileUs(0.8) > 100_000);
  });

  it('uses all its connections in turn when it sends at a fixed rate', async () => {
    const ports = new Map<number | undefined, number>();
    const { report } = await load(
      ({ socket: { remotePort } }, response) => {
        ports.set(remotePort, (ports.get(remotePort) ?? 0) + 1);
        response.end('x');
      },
      { connections: 8, ratePerSec: 200, warmUpMs: 0 },
    );
    assert.equal(report.firstFailure, undefined);
    assert.equal(ports.size, 8);
    assert.ok(Math.max(...ports.values()) <= 2 * Math.min(...ports.values()));
  });

  it('counts due requests that could not be sent as failures too', async () => {
    const { report } = await load(() => undefined, {
      connections: 1,
      ratePerSec: 100,
      warmUpMs: 0,
      measuredMs: 1_000,
      patienceMs: 100,
    });
    assert.equal(report.answers, 0);
    // One was sent. 100, minus those that fell due while a busy machine opened the connection.
    assert.ok(report.failures >= 10 && report.failures <= 100, `${report.failures}`);
    assert.equal(report.firstFailure, 'no answer');
  });

  it('sends one request on every connection in a burst', async () => {
    const { report, requests } = await load((_, response) => void response.end('x'), {
      kind: 'burst',
      connections: 30,
      measuredMs: 5_000,
    });
    assert.equal(report.answers, 30);
    assert.equal(requests, 30);
  });

  it('stops when it gets a token of another identity', async () => {
    const identity = createLabIdentity('other');
    const issuedAtWallMs = Date.now();
    const token = createTokenSigner()({
      identity,
      audience: 'a',
      tenantId: 't',
      issuedAtWallMs,
      lifetimeMs: 1000,
    });
    const expect = { kind: 'identity', name: 'mine' } as const;
    await assert.rejects(
      load((_, response) => void response.end(JSON.stringify({ access_token: token })), {
        callers: [{ target: '/', expect }],
      }),
      /tokens of another identity/,
    );
  });
});
