import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, connect } from 'node:net';
import { describe, it } from 'node:test';
import { ResourceUses } from '../../../../src/nmi/grants/resource-uses.ts';
import { systemClock, type Clock } from '../../../../src/base/time/clock.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { tuning } from '../../../../src/nmi/config/tuning.ts';
import type { Observer, RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import { openServer } from '../../../../src/nmi/server/server.ts';
import { LoopDetection } from '../../../../src/nmi/sources/imds/loop-detection.ts';
import type { ClusterState } from '../../../../src/nmi/state/cluster-state.ts';
import type { TokenBroker } from '../../../../src/nmi/tokens/broker.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { longLived } from '../../../support/token-fixture.ts';
import { world } from '../../../world.ts';

const podIp = '127.0.0.11';
const token =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.example';

/**
 * The request path for one pod that is bound to an identity; its token is cached.
 * @param node whether another agent takes connections, and whether this one is ready.
 */
async function open(
  flags: Readonly<Record<string, string>> = {},
  clock: Clock = systemClock,
  node = { isAlone: true, isReady: true },
) {
  const port = await freePort();
  const parsed = parseConfig({ node: 'n', 'nmi-port': String(port), ...flags }, {});
  assert.ok(parsed.ok, JSON.stringify(parsed));
  // A redirect could not lead to loopback, but the listener of this test must be there.
  const listenIp = flags['nmi-listen-address'] ?? '127.0.0.1';
  const { pods, clusterState, waiters } = world({
    pods: [{ name: 'p', ips: [podIp], labels: { aadpodidbinding: 'label' } }],
    identities: [{ clientId: '22729e47-74ce-4b43-8eea-aab5f2073301' }],
    bindings: [{}],
  });
  const seen: string[] = [];
  const lines: string[] = [];
  const observer = {
    onRequest: ({ reason }: RequestRecord) => seen.push(`request ${reason}`),
    onRefusal: (reason: string) => seen.push(`refusal ${reason}`),
    onHit: () => seen.push('hit'),
    onThrottled: ({ name }: Pod, limit: string) => seen.push(`throttled ${name} ${limit}`),
  };
  const server = await openServer({
    config: { ...parsed.config, listenIp },
    tuning,
    kernel: {
      attest: () => ({ kind: 'by-address' }),
      findCgroupUid: () => undefined,
      port: parsed.config.listenPort,
      hasSlots: false,
      isAlone: () => node.isAlone,
    },
    isReady: () => node.isReady,
    state: { ...clusterState, waiters } as unknown as ClusterState,
    broker: { peek: () => longLived } as unknown as TokenBroker,
    uses: new ResourceUses(systemClock),
    observer: observer as unknown as Observer,
    loopDetection: new LoopDetection(),
    clock,
    log: createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) }),
  });
  function dial(localAddress = podIp, host = '127.0.0.1') {
    return connect({ host, port, localAddress }).on('error', () => undefined);
  }
  /** Status of the answer to one request on a new connection; empty if there is none. */
  async function ask(target: string, { from = podIp, host = '127.0.0.1', headers = '' } = {}) {
    const socket = dial(from, host);
    socket.end(`GET ${target} HTTP/1.1\r\nMetadata: true\r\nConnection: close\r\n${headers}\r\n`);
    let text = '';
    socket.on('data', (bytes) => (text += String(bytes)));
    await once(socket, 'close');
    return text.slice(9, 12);
  }
  return {
    server,
    port,
    pods,
    seen,
    observer,
    lines,
    dial,
    ask,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function assertRefused(port: number): Promise<void> {
  const refused = connect({ host: '127.0.0.1', port });
  await assert.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
}

describe('the assembled request path', () => {
  it('answers a pod on the configured port, and identifies it by its address', async () => {
    await using fixture = await open();
    assert.equal(fixture.server.port, fixture.port);
    assert.equal(await fixture.ask(token), '200');
    assert.equal(await fixture.ask('/nothing'), '404');
    const socket = fixture.dial();
    socket.write('no request\r\n\r\n');
    await once(socket, 'data');
    assert.deepEqual(fixture.seen, ['hit', 'request not_found', 'refusal method_not_allowed']);
    const counts = fixture.server.samples().map(({ metric, value }) => `${metric} ${value}`);
    assert.ok(counts.includes('nmi_connections_refused_total 0'), String(counts));
    socket.destroy();
    await eventually(() => {
      const [connections] = fixture.server
        .samples()
        .filter(({ metric }) => metric === 'nmi_connections');
      assert.equal(connections?.value, 0);
    });
    const bound = fixture.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual([bound[0]?.['msg'], bound[0]?.['port']], ['listening', fixture.port]);
  });

  /** Some turns of a clock that stands still otherwise. */
  async function pass(clock: HandClock, ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 50) {
      clock.advance(50);
      await new Promise(setImmediate);
    }
  }

  const says = 'another agent takes connections until this one is ready';
  for (const [when, node, change] of [
    ['at once if it is alone, ready or not', { isAlone: true, isReady: false }, {}],
    ['once it is ready', { isAlone: false, isReady: false }, { isReady: true }],
    ['once the other agent is gone', { isAlone: false, isReady: false }, { isAlone: true }],
  ] as const) {
    it(`listens ${when}`, async () => {
      const clock = new HandClock();
      const now: { isAlone: boolean; isReady: boolean } = { ...node };
      await using fixture = await open({}, clock, now);
      const [condition] = fixture.server.conditions;
      assert.equal(condition?.name, 'listener');
      if (!node.isAlone) {
        await pass(clock, 600_000 / 50);
        assert.equal(condition.problem(), says);
        await assertRefused(fixture.port);
        Object.assign(now, change);
        await pass(clock, 50);
      }
      await eventually(() => assert.equal(condition.problem(), undefined));
      assert.equal(await fixture.ask(token), '200');
      now.isReady = true;
      await pass(clock, 50);
      assert.deepEqual(
        clock.armed.filter((ms) => ms <= 50),
        [],
        'it polls no more',
      );
    });
  }

  it('listens no more, until it is ready, once another agent takes connections', async () => {
    const clock = new HandClock();
    const node = { isAlone: true, isReady: false };
    await using fixture = await open({}, clock, node);
    const [condition] = fixture.server.conditions;
    assert.equal(await fixture.ask(token), '200');
    node.isAlone = false;
    await pass(clock, 50);
    assert.equal(condition?.problem(), says);
    await assertRefused(fixture.port);
    node.isReady = true;
    await pass(clock, 50);
    await eventually(() => assert.equal(condition.problem(), undefined));
    node.isReady = false;
    await pass(clock, 200);
    assert.equal(await fixture.ask(token), '200', 'it was ready, so it stays');
  });

  it('tries again where it cannot listen in its turn, and is not ready until then', async () => {
    const clock = new HandClock();
    const node = { isAlone: false, isReady: false };
    await using fixture = await open({}, clock, node);
    const [condition] = fixture.server.conditions;
    const taken = createServer().listen(fixture.port, '127.0.0.1');
    await once(taken, 'listening');
    node.isReady = true;
    clock.advance(50);
    await eventually(() => assert.match(condition?.problem() ?? '', /is in use/));
    taken.close();
    await once(taken, 'close');
    await eventually(async () => {
      await pass(clock, 50);
      assert.equal(condition?.problem(), undefined);
    });
    assert.equal(await fixture.ask(token), '200');
  });

  it('answers usual requests on the fast path, unless that is off', async () => {
    const usual = `GET ${token} HTTP/1.1\r\nMetadata: true\r\n\r\n`;
    for (const [fastPath, reported] of [
      ['true', 'hit'],
      ['false', 'request ok'],
    ] as const) {
      await using fixture = await open({ 'fast-path': fastPath });
      const socket = fixture.dial();
      socket.write(usual);
      const [bytes] = (await once(socket, 'data')) as [Buffer];
      assert.match(bytes.toString(), /^HTTP\/1\.1 200 /);
      assert.equal(fixture.seen[0], reported);
      socket.destroy();
    }
  });

  it('has /host/token when it is on, on loopback beside another address', async () => {
    const host = '/host/token?resource=https://vault.example';
    const named = { headers: 'podns: default\r\npodname: p\r\n', from: '127.0.0.1' };
    await using off = await open();
    assert.equal(await off.ask(host, named), '404');
    await using on = await open({ 'enable-host-token': 'true' });
    assert.equal(await on.ask(host, named), '200');
    assert.equal(on.lines.length, 1, 'one listener is enough');
    await using beside = await open({
      'enable-host-token': 'true',
      'nmi-listen-address': '127.0.0.2',
    });
    assert.equal(await beside.ask(host, named), '200');
    assert.equal(await beside.ask(token, { host: '127.0.0.2' }), '200');
    assert.equal(beside.lines.length, 2);
  });

  it('logs an error of the fast path with its stack, and still answers the pod', async () => {
    await using fixture = await open();
    fixture.observer.onHit = () => {
      throw new RangeError('broken');
    };
    assert.equal(await fixture.ask(token), '200');
    const { msg, err } = JSON.parse(fixture.lines[1] ?? '') as Record<string, unknown>;
    assert.equal(msg, 'request failed');
    assert.match(String(err), /^RangeError: broken\n +at .*onHit/);
  });

  it('takes its policies from the configuration', async () => {
    await using plain = await open();
    assert.deepEqual(plain.server.policy, {
      strict: false,
      graceMs: tuning.bindingGraceMs,
      hostNetwork: 'serve',
    });
    await using strict = await open({
      'strict-identity': 'true',
      'host-network': 'refuse',
      'block-instance-metadata': 'true',
    });
    const { strict: isStrict, hostNetwork } = strict.server.policy;
    assert.deepEqual([isStrict, hostNetwork], [true, 'refuse']);
    assert.equal(await strict.ask('/metadata/instance'), '403');
  });

  it('reports a pod at its connection limit, and no other', async () => {
    await using fixture = await open({ redirect: 'none' });
    const sockets = Array.from({ length: 384 }, () => fixture.dial());
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    for (const from of [podIp, '127.0.0.12']) {
      const surplus = Array.from({ length: 65 }, () => fixture.dial(from));
      await Promise.all(surplus.map((socket) => once(socket, 'connect')));
      sockets.push(...surplus);
    }
    await eventually(() => {
      const [throttling] = fixture.server.throttled.of('uid-p');
      assert.deepEqual([throttling?.limit, throttling?.count], ['connections', 65]);
    });
    assert.deepEqual(new Set(fixture.seen), new Set(['throttled p connections']));
    for (const socket of sockets) socket.destroy();
  });

  it('reports a pod that connects about as fast as the kernel allows, and no other', async () => {
    // In no time.
    const clock = { ...systemClock, monotonicMs: () => 0 };
    await using fixture = await open({ redirect: 'iptables' }, clock);
    fixture.pods.upsert(createPod({ name: 'q', uid: 'uid-q', ips: ['127.0.0.12'] }));
    const storm = async (from: string, count: number) => {
      for (let left = count; left > 0; left--) {
        const socket = fixture.dial(from);
        await once(socket, 'connect');
        socket.destroy();
      }
    };
    await Promise.all(Array.from({ length: 20 }, () => storm(podIp, 20)));
    await storm('127.0.0.12', 200);
    await eventually(() => assert.ok(fixture.seen.length > 0));
    assert.deepEqual(new Set(fixture.seen), new Set(['throttled p connection_rate']));
    assert.equal(fixture.server.throttled.of('uid-p')[0]?.limit, 'connection_rate');
  });

  it('reports a pod that requests more new resources in a minute than it may', async () => {
    await using fixture = await open();
    const socket = fixture.dial();
    for (let number = 0; number < 601; number++) {
      const target = token.replace('https://vault.example', `api://${number}`);
      socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n`);
      await once(socket, 'data');
    }
    socket.destroy();
    await eventually(() => assert.ok(fixture.seen.includes('throttled p resources')));
    assert.equal(fixture.server.throttled.of('uid-p')[0]?.limit, 'resources');
    assert.equal(fixture.seen.filter((each) => each === 'hit').length, 600);
  });

  it('does not start when its port is in use, and names the options', async () => {
    const port = await freePort();
    await using taken = createServer().listen(port, '127.0.0.1');
    await once(taken, 'listening');
    await assert.rejects(open({ 'nmi-port': String(port) }), {
      name: 'StartError',
      message: new RegExp(`127\\.0\\.0\\.1:${port} is in use .*--nmi-port or --nmi-listen-address`),
    });
  });
});
