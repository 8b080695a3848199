/**
 * What measures: the load program against servers that misbehave on purpose, its requests and its reader of
 * answers, the bare proxy, and whether a run has the machine to itself.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram } from '../../../bench/core/histogram.ts';
import { openBareProxy } from '../../../bench/fixture/controls.ts';
import { runLoad } from '../../../bench/fixture/run-load.ts';
import { AnswerCheck } from '../../../bench/load/answer-check.ts';
import { AnswerScan } from '../../../bench/load/answer-scan.ts';
import type { LoadPlan } from '../../../bench/load/plan.ts';
import { RequestBytes, sdkHeaders } from '../../../bench/load/request.ts';
import { obstacleTo, takeTurn, untilQuiet } from '../../../bench/machine/alone.ts';
import { watchOthers } from '../../../bench/machine/others.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import { createTokenSigner } from '../../../lab/fakes/token.ts';

function tokenAnswer(name: string): string {
  const times = { issuedAtWallMs: Date.now(), lifetimeMs: 1000 };
  const grant = { identity: createLabIdentity(name), audience: 'a', tenantId: 't', ...times };
  return JSON.stringify({ access_token: createTokenSigner()(grant), expires_in: '1' });
}

async function portOf(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return (server.address() as AddressInfo).port;
}

const statuses = { target: '/', expect: { kind: 'status', statuses: [200] } } as const;
const usual: Omit<LoadPlan, 'port'> = {
  host: '127.0.0.1',
  connections: 4,
  kind: 'keep',
  warmUpMs: 100,
  measuredMs: 400,
  callers: [statuses],
  serverPids: [process.pid],
};

async function load(listener: RequestListener, plan: Partial<LoadPlan> = {}) {
  let requests = 0;
  const server = createServer((request, response) => {
    requests += 1;
    listener(request, response);
  });
  const port = await portOf(server);
  try {
    const report = await runLoad({ ...usual, port, ...plan });
    return { ...report, requests };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const answer: RequestListener = (_, response) => void response.end('x');

describe('the load program', { timeout: 60_000 }, () => {
  it('counts right answers, their latency and the CPU of the server', async () => {
    for (const kind of ['keep', 'new'] as const) {
      const report = await load(answer, { kind });
      assert.equal(report.firstFailure, undefined);
      assert.ok(report.answers > 0 && report.answers <= report.requests);
      assert.equal(Histogram.from(report.latency).count, report.answers);
      assert.ok((report.cpuMsPer1000 ?? 0) > 0);
    }
  });

  it('leaves it to the server to close a connection first, so no port stays in use', async () => {
    let before: Socket | undefined;
    // This server closes a connection when the next request arrives.
    const server = createTcpServer((socket) => {
      socket.on('data', () => {
        before?.destroy();
        before = socket;
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx');
      });
    });
    const port = await portOf(server);
    const plan = { port, connections: 1, kind: 'new', warmUpMs: 0, measuredMs: 500 } as const;
    const callers = [{ ...statuses, sourceIp: '127.0.7.7' }];
    const report = await runLoad({ ...usual, ...plan, callers });
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

  it('counts wrong answers, lost connections and requests that could not be sent as failures', async () => {
    const late = {
      connections: 1,
      ratePerSec: 100,
      warmUpMs: 0,
      measuredMs: 1_000,
      patienceMs: 100,
    };
    for (const [listener, plan, why] of [
      [(_, response) => void response.writeHead(500).end('x'), {}, /status 500/],
      [(request) => void request.socket.destroy(), {}, /./],
      // One was sent. 100, minus those that fell due while a busy machine opened the connection.
      [() => undefined, late, /^no answer$/],
    ] as readonly [RequestListener, Partial<LoadPlan>, RegExp][]) {
      const { answers, failures, firstFailure } = await load(listener, plan);
      assert.equal(answers, 0);
      assert.match(firstFailure ?? '', why);
      assert.ok(failures > 0 && (plan !== late || (failures >= 10 && failures <= 100)));
    }
  });

  it('counts latency from when a request was due, however late it could be sent', async () => {
    let isFirst = true;
    const slow: RequestListener = (_, response) => {
      setTimeout(() => response.end('x'), isFirst ? 300 : 0);
      isFirst = false;
    };
    // One connection, which the first request occupies for 300 ms while others fall due.
    const plan = { connections: 1, ratePerSec: 100, warmUpMs: 0, measuredMs: 600 };
    const report = await load(slow, plan);
    assert.equal(report.firstFailure, undefined);
    assert.ok(report.answers >= 30 && report.answers <= 61, `${report.answers} answers`);
    // A third of them fell due in the first 200 ms of that time. Counted from when they were sent,
    // only one would be late.
    assert.ok(Histogram.from(report.latency).percentileUs(0.8) > 100_000);
  });

  it('uses all its connections in turn at a fixed rate, and each once in a burst', async () => {
    const ports = new Map<number | undefined, number>();
    const count: RequestListener = ({ socket: { remotePort } }, response) => {
      ports.set(remotePort, (ports.get(remotePort) ?? 0) + 1);
      response.end('x');
    };
    await load(count, { connections: 8, ratePerSec: 200, warmUpMs: 0 });
    assert.equal(ports.size, 8);
    assert.ok(Math.max(...ports.values()) <= 2 * Math.min(...ports.values()));
    const burst = await load(answer, { kind: 'burst', connections: 30, measuredMs: 5_000 });
    assert.deepEqual([burst.answers, burst.requests], [30, 30]);
  });

  it('stops when it gets a token of another identity', async () => {
    const callers = [{ target: '/', expect: { kind: 'identity', name: 'mine' } as const }];
    const foreign = load((_, response) => void response.end(tokenAnswer('other')), { callers });
    await assert.rejects(foreign, /tokens of another identity/);
  });
});

describe('the reader of answers', () => {
  const framings = ['length', 'small letters', 'chunks'] as const;
  function answerOf(status: number, body: string, framing: (typeof framings)[number] = 'length') {
    const line = `HTTP/1.1 ${status} Whatever\r\nX-Other: 1`;
    if (framing === 'length') return `${line}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    if (framing !== 'chunks') return `${line}\r\ncontent-length:${body.length}\r\n\r\n${body}`;
    const half = Math.floor(body.length / 2);
    const chunks = [body.slice(0, half), body.slice(half)]
      .filter((part) => part !== '')
      .map((part) => `${part.length.toString(16)}\r\n${part}\r\n`);
    return `${line}\r\nTransfer-Encoding: chunked\r\n\r\n${chunks.join('')}0\r\n\r\n`;
  }

  it('finds status, end and body with any framing, and never too early', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 599 }),
        fc.stringMatching(/^[ -~]{0,300}$/),
        fc.constantFrom(...framings),
        (status, body, framing) => {
          const whole = Buffer.from(answerOf(status, body, framing), 'latin1');
          const scan = new AnswerScan();
          // What is behind the length is the rest of an earlier answer.
          for (let length = 0; length < whole.length; length++) {
            assert.ok(!scan.scan(whole, length), `whole at ${length}`);
          }
          assert.ok(scan.scan(Buffer.concat([whole, whole]), whole.length * 2));
          assert.deepEqual([scan.status, scan.total], [status, whole.length]);
          assert.equal(scan.body(whole).toString('latin1'), body);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('accepts only tokens of the identity, before and after it has seen one, or the expected status', () => {
    const own = new AnswerCheck({ target: '/', expect: { kind: 'identity', name: 'mine' } });
    const busy = new AnswerCheck({ target: '/', expect: { kind: 'status', statuses: [429] } });
    const rows = [
      [own, 200, tokenAnswer('other'), 'foreign'],
      [own, 200, tokenAnswer('mine'), 'right'],
      [own, 500, tokenAnswer('mine'), 'wrong'],
      [own, 200, '{"access_token":"x"}', 'wrong'],
      [own, 200, 'x'.repeat(2000), 'wrong'],
      [busy, 429, '', 'right'],
      [busy, 200, '', 'wrong'],
    ] as const;
    for (const [check, status, body, verdict] of [...rows, ...rows]) {
      const scan = new AnswerScan();
      const bytes = Buffer.from(answerOf(status, body), 'latin1');
      assert.ok(scan.scan(bytes, bytes.length));
      assert.equal(check.check(bytes, scan, 0), verdict);
    }
  });
});

describe('a request of the load', { timeout: 30_000 }, () => {
  const root = join(import.meta.dirname, '../../..');
  const target = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x';
  const id = /(?<=\r\nx-ms-client-request-id: )([0-9a-f-]{36})(?=\r\n)/;
  const idOf = (head: string): string => id.exec(head)?.[0] ?? '';

  /** The head of MSAL's token request. */
  async function requestOfMsal(): Promise<string> {
    const asked = Promise.withResolvers<string>();
    const server = createTcpServer((socket) => {
      socket.once('data', (chunk) => {
        asked.resolve(chunk.toString('latin1'));
        socket.destroy();
      });
    });
    const host = `http://127.0.0.1:${await portOf(server)}`;
    const program = join(root, 'test/node/clients/programs/msal-node.ts');
    const job = JSON.stringify([{ credential: 'managed', resource: 'x', calls: 1 }]);
    const child = spawn(process.execPath, [program, root, job], {
      stdio: 'ignore',
      env: { ...process.env, AZURE_POD_IDENTITY_AUTHORITY_HOST: host },
    });
    const ended = once(child, 'exit');
    try {
      return await asked.promise;
    } finally {
      child.kill('SIGKILL');
      await ended;
      server.close();
    }
  }

  it('has the headers of MSAL for Node (measured anew here: a new version may send others)', async () => {
    const [host, connection, ...lines] = (await requestOfMsal()).split('\r\n').slice(1, -2);
    const plain = (line: string): string =>
      line.replace(/-id: .*/, '-id: ID').replace(/VER: .*/, 'VER: V');
    assert.match(host ?? '', /^host: /);
    assert.equal(connection, 'connection: keep-alive');
    const ours = sdkHeaders.map(([name, value]) => plain(`${name}: ${value}`));
    assert.deepEqual(lines.map(plain), ours);
  });

  it('has its own id, in which every digit changes, unless it is to stay the same', () => {
    const request = new RequestBytes(target, 'sdk', 'keep-alive');
    const texts = Array.from({ length: 1000 }, () => request.next().toString('latin1'));
    const ids = texts.map(idOf);
    assert.equal(new Set(ids).size, 1000);
    for (const each of ids) assert.match(each, /^.{8}-.{4}-4.{3}-8.{3}-.{12}$/);
    const places = Array.from({ length: 36 }, (_, at) => at);
    const still = places.filter((at) => new Set(ids.map((each) => each[at])).size < 16);
    assert.deepEqual(still, [8, 13, 14, 18, 19, 23]);
    assert.equal(new Set(texts.map((each) => each.replace(id, ''))).size, 1);
    const same = new RequestBytes(target, 'same', 'close');
    const first = same.next().toString('latin1');
    assert.equal(same.next().toString('latin1'), first);
    const unusual = new RequestBytes(target, 'unusual', 'close').next().toString('latin1');
    assert.equal(unusual.replace(id, idOf(first)).replace('te: trailers\r\n', ''), first);
  });
});

describe('the bare proxy', { timeout: 30_000 }, () => {
  const stack = new AsyncDisposableStack();
  after(() => stack.disposeAsync());

  it('forwards a request, returns status, content type and body, and adds nothing', async () => {
    const asked: string[] = [];
    const upstream = createServer((request, response) => {
      void text(request).then((body) => {
        const { method, url, headers } = request;
        asked.push([method, url, headers['metadata'], body].join(' '));
        const status = method === 'POST' ? 400 : 200;
        response.writeHead(status, { 'content-type': 'text/x-test', 'x-more': '1' }).end('grün');
      });
    });
    stack.defer(() => void upstream.close());
    const proxyUrl = await openBareProxy(`http://127.0.0.1:${await portOf(upstream)}`, '', stack);
    const got = await fetch(`${proxyUrl}/a?b=%20c`, { headers: { metadata: 'true' } });
    assert.deepEqual([got.status, await got.text()], [200, 'grün']);
    const fields = ['content-type', 'x-more'].map((name) => got.headers.get(name));
    assert.deepEqual(fields, ['text/x-test', null]);
    const posted = await fetch(`${proxyUrl}/d`, { method: 'POST', body: 'e=f' });
    assert.deepEqual([posted.status, await posted.text()], [400, 'grün']);
    assert.deepEqual(asked, ['GET /a?b=%20c true ', 'POST /d  e=f']);
  });
});

describe('a run', () => {
  it('locks the machine, unless another run has it that still lives', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-alone-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'lock');
    const first = takeTurn(file);
    assert.deepEqual([first.otherPid, takeTurn(file).otherPid], [undefined, process.pid]);
    first[Symbol.dispose]();
    assert.ok(!existsSync(file));
    // Of a run that has ended, or with a pid that was reused.
    for (const left of [`${process.pid} 1`, '4194304 1', '', 'x']) {
      writeFileSync(file, left);
      using turn = takeTurn(file);
      assert.equal(turn.otherPid, undefined, left);
    }
  });

  it('must not be published beside another, nor while the machine is busy', () => {
    const turn = { otherPid: undefined, [Symbol.dispose]: () => undefined };
    assert.equal(obstacleTo(0.5, turn), undefined);
    assert.match(obstacleTo(0.6, turn) ?? '', /load of the machine is 0\.6/);
    assert.match(obstacleTo(0, { ...turn, otherPid: 7 }) ?? '', /another run .*pid 7/);
  });

  it('waits for the load to fall, but not without limit', async () => {
    const loads = [2, 1, 0.6, 0.5, 0.4];
    const common = { pauseMs: 1, stop: new AbortController().signal, limitMs: 60_000 };
    await untilQuiet({ ...common, load: () => loads.shift() ?? 9 });
    assert.deepEqual(loads, [0.4]);
    await untilQuiet({ ...common, load: () => 9, limitMs: 20 });
    await untilQuiet({ ...common, load: () => 9, stop: AbortSignal.abort() });
  });

  it('counts the CPU time of other processes, without that of its own ended children', async () => {
    const spin = 'for (const end = Date.now() + 600; Date.now() < end;);';
    // Other processes can use at most all processors minus the child's share.
    const atMs = performance.now();
    const beside = watchOthers();
    const script = `${spin} console.log(process.cpuUsage().user / 1000)`;
    const childMs = Number(execFileSync(process.execPath, ['-e', script]));
    const others = beside();
    // Over more than the time that the others are counted in.
    const share = childMs / (performance.now() - atMs);
    assert.ok(others <= cpus().length - share + 0.05, `${others} beside ${share}`);
    // A grandchild that outlives its parent is no longer a child here: it counts like other
    // processes.
    const besideOrphan = watchOthers();
    const orphan = `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(spin)}], { detached: true, stdio: 'ignore' }).unref()`;
    await once(spawn(process.execPath, ['-e', orphan], { stdio: 'ignore' }), 'exit');
    await new Promise((resolve) => setTimeout(resolve, 700));
    const used = besideOrphan();
    assert.ok(used > 0.2, `${used}`);
  });
});
