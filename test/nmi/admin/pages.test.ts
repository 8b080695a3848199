import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { openAdminPages, type AdminOptions } from '../../../src/nmi/admin/pages.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';

interface Page {
  readonly status: number;
  readonly type: string | null;
  readonly text: string;
}

async function get(port: number, path: string, accept = '*/*'): Promise<Page> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { accept } });
  const type = response.headers.get('content-type');
  return { status: response.status, type, text: await response.text() };
}

type Over = Partial<AdminOptions['config'] & Omit<AdminOptions, 'config'>>;

async function open({ probePort, metricsPort, metricsAddress = '', ...over }: Over = {}) {
  const [freePort, otherPort] = await twoFreePorts();
  const config = {
    probePort: probePort ?? freePort,
    metricsPort: metricsPort ?? otherPort,
    metricsAddress,
  };
  const options: AdminOptions = {
    config,
    metrics: createMetrics(),
    clock: systemClock,
    parts: [],
    hasBeenActive: () => true,
    ...over,
  };
  const pages = await openAdminPages(options);
  return { ...options, ...config, [Symbol.asyncDispose]: () => pages[Symbol.asyncDispose]() };
}

async function countListening(): Promise<number> {
  await new Promise(setImmediate);
  return process.getActiveResourcesInfo().filter((name) => name === 'TCPServerWrap').length;
}

const probes = ['/healthz', '/livez', '/readyz'];

describe('the pages for probes and scrapes', () => {
  it('are each on their own port, and on no other', async () => {
    await using admin = await open();
    for (const path of probes) {
      assert.equal((await get(admin.probePort, path)).status, 200, path);
      assert.equal((await get(admin.metricsPort, path)).status, 404, path);
    }
    assert.equal((await get(admin.metricsPort, '/metrics')).status, 200);
    assert.equal((await get(admin.probePort, '/metrics')).status, 404);
    for (const port of [admin.probePort, admin.metricsPort]) {
      assert.equal((await get(port, '/')).status, 404);
    }
  });

  it('share a port when both have the same', async () => {
    const [port] = await twoFreePorts();
    await using admin = await open({ probePort: port, metricsPort: port });
    for (const path of [...probes, '/metrics']) {
      assert.equal((await get(admin.probePort, path)).status, 200, path);
    }
  });

  it('have the metrics only at the configured address, if any, and the probes at all', async () => {
    await using admin = await open({ metricsAddress: '127.0.0.2' });
    const metricsAt = (host: string) => fetch(`http://${host}:${admin.metricsPort}/metrics`);
    assert.equal((await metricsAt('127.0.0.2')).status, 200);
    await assert.rejects(metricsAt('127.0.0.1'));
    assert.equal((await get(admin.probePort, '/livez')).status, 200);
    await assert.rejects(
      open({ metricsAddress: '192.0.2.1' }),
      /does not have the address 192\.0\.2\.1: .*; --http-probe-port, --prometheus-port or --prometheus-address chooses another/,
    );
  });

  it('end a connection that sends nothing, in time or with its own end', async () => {
    await using admin = await open();
    for (const [endsItself, fromMs, toMs] of [
      [true, 0, 1_000],
      [false, 1_900, 4_000],
    ] as const) {
      const socket = connect(admin.probePort, '127.0.0.1').resume();
      const beganMs = performance.now();
      using time = new OwnTime();
      if (endsItself) socket.end();
      await once(socket, 'close');
      const [tookMs, ownMs] = [performance.now() - beganMs, time.nowMs()];
      assert.ok(tookMs >= fromMs && ownMs < toMs, `${ownMs} of ${tookMs} ms`);
    }
  });

  it('answer a request that arrives in pieces', async () => {
    await using admin = await open();
    const socket = connect({ port: admin.probePort, host: '127.0.0.1', allowHalfOpen: true });
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    const ended = once(socket, 'end');
    for (const piece of ['GET /li', 'vez HTTP/1.1\r\nHo', 'st: x\r\n\r\n']) {
      socket.write(piece);
      await delay(20);
    }
    await ended;
    socket.end();
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nok$/);
  });

  it('arrive in full when the client ends its half of the connection meanwhile', async () => {
    const text = 'x'.repeat(32 * 1024 * 1024);
    const render = () => Promise.resolve(text);
    await using admin = await open({ metrics: { ...createMetrics(), render } });
    const socket = connect(admin.metricsPort, '127.0.0.1');
    socket.write('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'readable');
    socket.end();
    let length = 0;
    for await (const chunk of socket as AsyncIterable<Buffer>) length += chunk.length;
    assert.ok(length > text.length, `${length} bytes`);
  });

  it('are off for port 0', async () => {
    await using admin = await open({ metricsPort: 0 });
    assert.equal((await get(admin.probePort, '/livez')).status, 200);
    const { metrics, clock, parts, hasBeenActive } = admin;
    const before = await countListening();
    await using _none = await openAdminPages({
      config: { probePort: 0, metricsPort: 0, metricsAddress: '' },
      metrics,
      clock,
      parts,
      hasBeenActive,
    });
    assert.equal(await countListening(), before);
  });

  it('end with the agent, even during an answer', { timeout: 10_000 }, async () => {
    const asked = Promise.withResolvers<void>();
    const render = (): Promise<string> => {
      asked.resolve();
      return new Promise(() => undefined);
    };
    const admin = await open({ metrics: { ...createMetrics(), render } });
    const answer = get(admin.metricsPort, '/metrics');
    const ended = assert.rejects(answer);
    await asked.promise;
    await admin[Symbol.asyncDispose]();
    await ended;
  });

  it('report at /healthz whether the redirect was ever installed, with 200 in either case', async () => {
    let hasBeenActive = false;
    await using admin = await open({ hasBeenActive: () => hasBeenActive });
    assert.deepEqual(await get(admin.probePort, '/healthz'), {
      status: 200,
      type: 'text/plain; charset=utf-8',
      text: 'Not Active',
    });
    hasBeenActive = true;
    assert.equal((await get(admin.probePort, '/healthz?x')).text, 'Active');
  });

  it('report at /readyz what is missing, and stay alive without it', async () => {
    let problem: string | undefined = 'waiting for pods';
    const conditions = [{ name: 'watches', problem: () => problem }];
    await using admin = await open({ parts: [{ conditions }, {}] });
    const waiting = await get(admin.probePort, '/readyz');
    assert.equal(waiting.status, 503);
    assert.equal(waiting.type, 'application/json; charset=utf-8');
    assert.deepEqual(JSON.parse(waiting.text), {
      ready: false,
      missing: { watches: 'waiting for pods' },
    });
    assert.deepEqual((await get(admin.probePort, '/livez')).text, 'ok');
    problem = undefined;
    assert.equal((await get(admin.probePort, '/readyz')).status, 200);
  });

  it('have no flags and no version, which any pod could read', async () => {
    await using admin = await open();
    for (const path of ['/statusz', '/flagz', '/configz']) {
      assert.equal((await get(admin.probePort, path)).status, 404, path);
    }
  });

  it('render the metrics, and report an error when that fails', async () => {
    const metrics = createMetrics();
    await using admin = await open({ metrics });
    const page = await get(admin.metricsPort, '/metrics');
    assert.equal(page.type, metrics.contentType);
    assert.match(page.text, /^nmi_build_info\{/m);
    metrics.onScrape(() => {
      throw new RangeError('private');
    });
    await using failing = await open({ metrics });
    assert.deepEqual(await get(failing.metricsPort, '/metrics'), {
      status: 500,
      type: 'text/plain; charset=utf-8',
      text: 'the metrics could not be collected\n',
    });
  });

  it('show new metrics to the next scrape after one that a busy machine delayed', async () => {
    const clock = new HandClock();
    const { contentType } = createMetrics();
    let renders = 0;
    const render = (): Promise<string> => {
      if (++renders === 1) clock.advance(3_000);
      return Promise.resolve(`nmi_renders ${renders}\n`);
    };
    await using admin = await open({ clock, metrics: { contentType, render } });
    for (const [text, laterMs] of [
      ['nmi_renders 1\n', 0],
      ['nmi_renders 1\n', 5_000],
      ['nmi_renders 2\n', 0],
    ] as const) {
      assert.equal((await get(admin.metricsPort, '/metrics')).text, text);
      clock.advance(laterMs);
    }
  });

  it('name the options when a port is in use, and leave no other port open', async () => {
    const [probePort, metricsPort] = await twoFreePorts();
    const taken = createServer().listen(metricsPort);
    await once(taken, 'listening');
    await assert.rejects(open({ probePort, metricsPort }), (error: unknown) => {
      const text = String(error);
      assert.match(text, new RegExp(`one of the ports ${probePort} and ${metricsPort} is in use`));
      assert.match(text, /--http-probe-port or --prometheus-port/);
      return true;
    });
    const again = createServer().listen(probePort);
    await once(again, 'listening');
    taken.close();
    again.close();
  });

  it('wait for no port once they are closed', async (t) => {
    const [probePort, metricsPort] = await twoFreePorts();
    const before = createServer().listen(metricsPort);
    t.after(() => before.close());
    await once(before, 'listening');
    const clock = new HandClock();
    const onTaken = (): unknown => undefined;
    const admin = await open({ probePort, metricsPort, clock, onTaken });
    clock.advance(0);
    await eventually(() => assert.deepEqual(clock.armed, [250]));
    await admin[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });

  it('wait for a port that a previous agent still uses', async () => {
    const [probePort, metricsPort] = await twoFreePorts();
    const before = createServer().listen(metricsPort);
    await once(before, 'listening');
    const reported: number[] = [];
    const clock = new HandClock();
    const onTaken = (port: number): unknown => reported.push(port);
    await using _admin = await open({ probePort, metricsPort, clock, onTaken });
    clock.advance(0);
    for (let attempt = 0; attempt < 2; attempt++) {
      // The next one is armed when this one has failed.
      await eventually(() => assert.deepEqual(clock.armed, [250]));
      assert.deepEqual(reported, [metricsPort]);
      clock.advance(250);
    }
    assert.equal((await get(probePort, '/livez')).status, 200);
    await eventually(() => assert.deepEqual(clock.armed, [250]));
    before.close();
    await once(before, 'close');
    clock.advance(250);
    await eventually(async () => {
      assert.equal((await get(metricsPort, '/metrics')).status, 200);
    });
  });
});
