import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { twoFreePorts } from '../../../lab/fabric/free-ports.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../src/base/time/clock.ts';
import { PageConnections } from '../../../src/nmi/admin/page-connections.ts';
import { type AdminOptions, openAdminPages } from '../../../src/nmi/admin/pages.ts';
import { openReadinessEvents } from '../../../src/nmi/admin/readiness-events.ts';
import { StartupTaint } from '../../../src/nmi/admin/startup-taint.ts';
import type { OwnAccountOutcome } from '../../../src/nmi/kube/accounts/own-account.ts';
import type { JsonReader, KubeCalls } from '../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import type { EventDraft, ObjectReference } from '../../../src/nmi/kube/events/event.ts';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

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
  it('are each on their own port and on no other, or share one', async () => {
    await using admin = await open();
    for (const path of probes) {
      assert.equal((await get(admin.probePort, path)).status, 200, path);
      assert.equal((await get(admin.metricsPort, path)).status, 404, path);
    }
    assert.equal((await get(admin.metricsPort, '/metrics')).status, 200);
    assert.equal((await get(admin.probePort, '/metrics')).status, 404);
    // Flags and version could be read by any pod.
    for (const path of ['/', '/statusz', '/flagz', '/configz']) {
      assert.equal((await get(admin.probePort, path)).status, 404);
      assert.equal((await get(admin.metricsPort, path)).status, 404);
    }
    const [port] = await twoFreePorts();
    await using shared = await open({ probePort: port, metricsPort: port });
    for (const path of [...probes, '/metrics']) {
      assert.equal((await get(shared.probePort, path)).status, 200, path);
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
    const before = await countListening();
    await using _none = await open({ probePort: 0, metricsPort: 0 });
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

  it('wait for a port that a previous agent still uses, until they are closed', async () => {
    const [probePort, metricsPort] = await twoFreePorts();
    const before = createServer().listen(metricsPort);
    await once(before, 'listening');
    const reported: number[] = [];
    const clock = new HandClock();
    const onTaken = (port: number): unknown => reported.push(port);
    const closed = await open({ probePort: 0, metricsPort, clock, onTaken });
    clock.advance(0);
    await eventually(() => assert.deepEqual(clock.armed, [250]));
    await closed[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
    reported.length = 0;
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

class FakeSocket extends EventEmitter {
  readonly remoteAddress: string | undefined;
  readonly localAddress = '10.0.0.4';
  destroyed = false;

  constructor(remoteAddress: string | undefined) {
    super();
    this.remoteAddress = remoteAddress;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
}

function add(connections: PageConnections, remoteAddress: string | undefined): FakeSocket {
  const socket = new FakeSocket(remoteAddress);
  connections.add(socket as unknown as Socket);
  return socket;
}

describe('the connections to the pages', () => {
  it('make room for a new one by closing the oldest, however late that ends', () => {
    for (const endsLate of [false, true]) {
      const connections = new PageConnections();
      const all = Array.from({ length: 40 }, () => {
        const socket = new FakeSocket('10.1.0.7');
        if (endsLate) socket.emit = () => false;
        connections.add(socket as unknown as Socket);
        return socket;
      });
      assert.deepEqual(
        all.map(({ destroyed }) => destroyed),
        all.map((_, index) => index < 8),
      );
      if (endsLate) continue;
      all[20]?.destroy();
      add(connections, '10.1.0.7');
      assert.equal(all[8]?.destroyed, false, 'a closed one has released its place');
    }
  });

  it('of one address take no place from another address', () => {
    const connections = new PageConnections();
    const scrapes = ['10.2.0.9', '10.3.0.9'].map((address) => add(connections, address));
    const held = Array.from({ length: 100 }, () => add(connections, '10.1.0.7'));
    assert.ok(scrapes.every(({ destroyed }) => !destroyed));
    assert.equal(held.filter(({ destroyed }) => !destroyed).length, 30);
    connections.destroyAll();
    assert.ok([...scrapes, ...held].every(({ destroyed }) => destroyed));
  });

  it('of others take no place from the node itself', () => {
    const connections = new PageConnections();
    const own = Array.from({ length: 32 }, () => add(connections, '10.0.0.4'));
    for (let index = 0; index < 100; index++) {
      add(connections, index % 2 === 0 ? `10.1.0.${index}` : undefined);
    }
    assert.ok(own.every(({ destroyed }) => !destroyed));
  });
});

const inPod: OwnAccountOutcome = {
  kind: 'ok',
  serviceAccount: { namespace: 'kube-system', name: 'nmi' },
  pod: { name: 'nmi-x', uid: 'u' },
};

function openEvents(account: OwnAccountOutcome = inPod) {
  const clock = new HandClock();
  const state: { missing: Record<string, string>; account: OwnAccountOutcome; asked: number } = {
    missing: { watches: 'pods is not listed' },
    account,
    asked: 0,
  };
  const recorded: string[] = [];
  const regarded: ObjectReference[] = [];
  const job = openReadinessEvents({
    events: {
      record: (regarding, kind, draft: () => Omit<EventDraft, 'regarding'>) => {
        const { type, reason, note } = draft();
        regarded.push(regarding);
        return recorded.push(`${kind}: ${type} ${reason} ${note}`) > 0;
      },
    },
    ownAccount: {
      get: () => {
        state.asked += 1;
        return Promise.resolve(state.account);
      },
    },
    readiness: () => ({ ready: Object.keys(state.missing).length === 0, missing: state.missing }),
    clock,
  });
  return { clock, state, recorded, regarded, job };
}

describe('the readiness of the agent', () => {
  it('is an Event on the agent’s own pod for each change', async () => {
    const { clock, state, recorded, regarded, job } = openEvents();
    await pass(clock, 5_000);
    assert.deepEqual(recorded, [], 'a start is not a failure');
    state.missing = {};
    await pass(clock, 5_000);
    state.missing = { redirect: 'jump is missing', watches: 'stale' };
    await pass(clock, 5_000);
    state.missing = { redirect: 'jump is missing' };
    await pass(clock, 5_000);
    assert.deepEqual(recorded, [
      'Ready: Normal Ready The agent is ready: pods of this node get tokens.',
      'NotReady redirect watches: Warning NotReady The agent is not ready. redirect: jump is missing; ' +
        'watches: stale Fix: kubectl nmi doctor',
      'NotReady redirect: Warning NotReady The agent is not ready. redirect: jump is missing Fix: kubectl nmi doctor',
    ]);
    const own = {
      apiVersion: 'v1',
      kind: 'Pod',
      namespace: 'kube-system',
      name: 'nmi-x',
      uid: 'u',
    };
    assert.deepEqual(regarded[0], own);
    job[Symbol.dispose]();
    state.missing = {};
    await pass(clock, 5_000);
    assert.equal(recorded.length, 3, 'none after the disposal');
  });

  it('is reported when the start takes longer than 30 s', async () => {
    const { clock, recorded } = openEvents();
    await pass(clock, 29_000);
    assert.deepEqual(recorded, []);
    await pass(clock, 2_000);
    assert.equal(recorded.length, 1);
    assert.match(recorded[0] ?? '', /^NotReady watches: Warning NotReady .*pods is not listed/);
  });

  it('is not reported by an agent outside a pod, which is looked up once', async () => {
    for (const account of [
      { ...inPod, pod: undefined },
      { kind: 'no_service_account', username: 'admin' },
      { kind: 'forbidden', said: 'no' },
    ] as const) {
      const { clock, state, recorded } = openEvents(account);
      state.missing = {};
      await pass(clock, 60_000);
      assert.deepEqual([recorded, state.asked], [[], 1]);
      assert.deepEqual(clock.armed, []);
    }
  });

  it('waits for the API server to report the agent’s pod, without constant requests', async () => {
    const { clock, state, recorded } = openEvents({
      kind: 'unavailable',
      problem: 'NETWORK',
      retryAfterMs: undefined,
    });
    state.missing = {};
    await pass(clock, 60_000);
    assert.deepEqual(recorded, []);
    assert.ok(state.asked <= 5, String(state.asked));
    state.account = inPod;
    await pass(clock, 20_000);
    assert.equal(recorded.length, 1);
  });
});

const key = 'entra-pod-identity/not-ready';
const own = { key, effect: 'NoSchedule' };
const other = { key: 'gpu', value: 'yes', effect: 'NoSchedule' };

function openTaint(taints: readonly unknown[] | undefined) {
  const clock = new HandClock();
  const fixture = { isReady: false, failure: undefined as KubeError | undefined };
  const patches: unknown[] = [];
  const lines: string[] = [];
  const note = (_fields: unknown, message: string) => lines.push(message);
  const taint = new StartupTaint({
    client: {
      as: () =>
        ({
          getJson: (path) => {
            assert.equal(path, '/api/v1/nodes/node-1');
            return Promise.resolve({ spec: taints === undefined ? {} : { taints } });
          },
        }) satisfies JsonReader as KubeCalls,
      patchJson: (_path, patch) => {
        patches.push(patch);
        return fixture.failure === undefined
          ? Promise.resolve({})
          : Promise.reject(fixture.failure);
      },
    },
    node: 'node-1',
    key,
    clock,
    random: () => 0,
    isReady: () => fixture.isReady,
    log: { debug: note, info: note, warn: note, error: note },
  });
  return { clock, fixture, patches, lines, taint };
}

describe('the startup taint', () => {
  it('remains until the agent is ready, and is then removed without the other taints', async () => {
    const { clock, fixture, patches, lines } = openTaint([other, own]);
    await pass(clock, 5_000);
    assert.deepEqual(patches, []);
    fixture.isReady = true;
    await pass(clock, 300);
    assert.deepEqual(patches, [
      [
        { op: 'test', path: '/spec/taints', value: [other, own] },
        { op: 'replace', path: '/spec/taints', value: [other] },
      ],
    ]);
    assert.deepEqual(lines, ['startup taint removed']);
    await pass(clock, 60_000);
    assert.equal(patches.length, 1, 'once');
    // The node may have registered again, with the taint.
    await pass(clock, 300_000);
    assert.equal(patches.length, 2);
  });

  it('causes nothing when the node has none', async () => {
    for (const taints of [undefined, [], [other]]) {
      const { clock, fixture, patches, lines } = openTaint(taints);
      fixture.isReady = true;
      await pass(clock, 700_000);
      assert.deepEqual(patches, []);
      assert.deepEqual(lines, ['startup taint not found on this node']);
    }
  });

  it('remains while Karpenter has not registered the node, which would add it again', async () => {
    const unregistered = { key: 'karpenter.sh/unregistered', effect: 'NoExecute' };
    const taints: unknown[] = [unregistered, own];
    const { clock, fixture, patches, lines } = openTaint(taints);
    fixture.isReady = true;
    await pass(clock, 20_000);
    assert.deepEqual([patches, lines], [[], []]);
    // In one write, Karpenter adds the startup taints of its NodePool and removes its own.
    taints.splice(0, 2, own);
    await pass(clock, 2_000);
    assert.deepEqual(lines, ['startup taint removed']);
  });

  it('is retried, ever more slowly, when the list has changed or the permission is missing', async () => {
    const { clock, fixture, patches, lines } = openTaint([own]);
    fixture.isReady = true;
    fixture.failure = new KubeError('FORBIDDEN', 'no');
    await pass(clock, 10_000);
    assert.ok(patches.length >= 3 && patches.length <= 8, `${patches.length} tries`);
    fixture.failure = undefined;
    await pass(clock, 30_000);
    assert.equal(lines.at(-1), 'startup taint removed');
  });

  it('is not removed after disposal, and no warning is logged when that ends a request', async () => {
    for (const isReady of [true, false]) {
      const { clock, fixture, lines, patches, taint } = openTaint([own]);
      fixture.isReady = isReady;
      fixture.failure = new KubeError('NETWORK', 'ended');
      if (isReady) clock.advance(0);
      taint[Symbol.dispose]();
      fixture.isReady = true;
      await pass(clock, 60_000);
      assert.deepEqual([lines, clock.armed], [[], []]);
      if (!isReady) assert.deepEqual(patches, []);
    }
  });
});
