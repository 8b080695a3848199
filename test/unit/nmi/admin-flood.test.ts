import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock, type Clock } from '../../../src/base/time/clock.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { openAdminPages } from '../../../src/nmi/admin/pages.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { freshNative } from '../../../scripts/native.ts';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';

freshNative();

const livez = 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n';
const metrics = 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n';
/** Another loopback address than that of the page represents a pod. */
const elsewhere = '127.0.0.9';

async function open(render = () => Promise.resolve('nmi_up 1\n'), clock: Clock = systemClock) {
  const [probePort, metricsPort] = await twoFreePorts();
  const pages = await openAdminPages({
    config: { probePort, metricsPort, metricsAddress: '' },
    clock,
    metrics: { contentType: 'text/plain', render },
    parts: [],
    hasBeenActive: () => true,
  });
  const sockets: Socket[] = [];
  const dial = async (port: number, from: string): Promise<Socket> => {
    const socket = connect({ host: '127.0.0.1', port, localAddress: from });
    socket.on('error', () => undefined);
    sockets.push(socket);
    await Promise.race([once(socket, 'connect'), once(socket, 'close')]);
    return socket;
  };
  const dialProbe = (from = elsewhere) => dial(probePort, from);
  return {
    dialProbe,
    dialProbes: (count: number, from?: string) =>
      Promise.all(Array.from({ length: count }, () => dialProbe(from))),
    dialMetrics: () => dial(metricsPort, elsewhere),
    /** A probe of the kubelet. */
    probe: async (): Promise<void> => {
      const socket = await dialProbe('127.0.0.1');
      socket.write(livez);
      assert.match(await readAll(socket), /^HTTP\/1\.1 200 [^]*\r\n\r\nok$/);
    },
    scrape: async (): Promise<string> => {
      const socket = await dial(metricsPort, '127.0.0.1');
      socket.write(metrics);
      return readAll(socket);
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await pages[Symbol.asyncDispose]();
    },
  };
}

/** Everything received until the end. */
async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(socket, 'close');
  return text;
}

describe('the pages', () => {
  for (const from of [elsewhere, '127.0.0.1']) {
    it(`answer every probe while ${from} keeps all the connections it can`, async () => {
      await using fixture = await open();
      const slow = await fixture.dialProbes(200, from);
      for (const socket of slow) socket.write('GET /');
      for (let turn = 0; turn < 10; turn++) await fixture.probe();
      await delay(0);
      assert.ok(slow.filter(({ destroyed }) => !destroyed).length <= 32);
    });
  }

  it('answer a probe that came with the requests of 600 other connections while the agent was busy', async () => {
    await using fixture = await open();
    const others = await fixture.dialProbes(600);
    const probe = await fixture.dialProbe('127.0.0.1');
    for (const socket of [...others, probe]) socket.write(livez);
    // The thread that accepts goes on meanwhile.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    assert.match(await readAll(probe), /ok$/);
  });

  it('do not get silent connections, which end after two seconds or when newer ones need their place', async () => {
    await using fixture = await open();
    const before = process.getActiveResourcesInfo().length;
    const silent: Socket[] = [];
    for (let batch = 0; batch < 10; batch++) {
      silent.push(...(await fixture.dialProbes(250)));
      await fixture.probe();
    }
    const remaining = (): number => silent.filter(({ destroyed }) => !destroyed).length;
    assert.ok(remaining() <= 2_048, `${remaining()}`);
    const late = silent.at(-1);
    late?.write(livez);
    assert.ok(late !== undefined);
    assert.match(await readAll(late), /ok$/);
    // The other ends are not among them.
    assert.ok(process.getActiveResourcesInfo().length - before <= silent.length);
    for (const socket of silent) socket.resume();
    await eventually(() => assert.equal(remaining(), 0), 5_000);
    await fixture.probe();
  });

  it('serve one request per connection, and do not process pipelined ones', async () => {
    let renders = 0;
    await using fixture = await open(() => {
      renders++;
      return Promise.resolve('nmi_up 1\n');
    });
    const greedy = await fixture.dialMetrics();
    greedy.write(metrics.repeat(1_500));
    // Parsing that many blocks the event loop for 15 to 50 ms.
    // Closed with bytes that were not read, the connection may be reset.
    const reset = (error: NodeJS.ErrnoException): string => error.code ?? '';
    assert.match(await readAll(greedy).catch(reset), /^(?:ECONNRESET)?$/);
    assert.equal(renders, 0);
    const polite = await fixture.dialMetrics();
    polite.write(metrics);
    const answer = await readAll(polite);
    assert.match(answer, /^HTTP\/1\.1 200 [^]*\r\n\r\nnmi_up 1\n$/);
    assert.match(answer, /\r\nConnection: close\r\n/i);
  });

  it('read little of what a client sends at once', async () => {
    await using fixture = await open();
    const requests = Buffer.from(metrics.repeat(3_000));
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for (let index = 0; index < 200; index++) {
      const greedy = await fixture.dialMetrics();
      greedy.resume().write(requests);
      await eventually(() => assert.ok(greedy.closed));
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    assert.ok(most < 2 * 2 ** 20, `${most} bytes`);
  });

  it('answer a request of 12 KiB, which takes several reads', async () => {
    await using fixture = await open();
    const scrape = await fixture.dialMetrics();
    const authorization = 'x'.repeat(12 * 1024);
    scrape.write(`GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\n\r\n`);
    assert.match(await readAll(scrape), /^HTTP\/1\.1 200 [^]*\r\n\r\nnmi_up 1\n$/);
  });

  it('close a connection with another request before the first one is answered', async () => {
    const rendered = Promise.withResolvers<string>();
    let renders = 0;
    await using fixture = await open(() => {
      renders++;
      return rendered.promise;
    });
    const greedy = await fixture.dialMetrics();
    greedy.write(metrics);
    await eventually(() => assert.equal(renders, 1));
    greedy.resume().write(metrics);
    await eventually(() => assert.ok(greedy.closed));
    rendered.resolve('');
  });

  it('render the metrics for at most a twentieth of the time, and once for concurrent scrapes', async () => {
    let renders = 0;
    const clock = new HandClock();
    const rendered = Promise.withResolvers<undefined>();
    await using fixture = await open(async () => {
      renders++;
      await rendered.promise;
      clock.advance(20);
      return `nmi_renders ${renders}\n`;
    }, clock);
    const { scrape } = fixture;
    const both = Promise.all([scrape(), scrape()]);
    await eventually(() => assert.equal(renders, 1));
    rendered.resolve(undefined);
    for (const text of await both) assert.match(text, /nmi_renders 1\n$/);
    clock.advance(399);
    assert.match(await scrape(), /nmi_renders 1\n$/);
    clock.advance(1);
    assert.match(await scrape(), /nmi_renders 2\n$/);
  });

  it('keep no copy of the metrics for each slow reader', async () => {
    const text = `nmi_text ${'x'.repeat(8 * 1024 * 1024)}\n`;
    await using fixture = await open(() => Promise.resolve(text));
    const before = process.memoryUsage().rss;
    for (let index = 0; index < 30; index++) {
      const socket = await fixture.dialMetrics();
      socket.pause();
      socket.write(metrics);
      await delay(5);
    }
    await delay(200);
    const grownMb = (process.memoryUsage().rss - before) / 1024 / 1024;
    assert.ok(grownMb < 150, `${grownMb} MB for 30 times 8 MB`);
  });
});
