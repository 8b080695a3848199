/** Clients that send their request and then end their half of the connection, as `nc -N` does. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { Handled } from '../../src/nmi/server/request.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { openBareListener } from '../support/bare-listener.ts';
import { HandClock } from '../support/hand-clock.ts';
import { bindPodToA, identityA, idsOf, openLoopbackAgent } from '../support/loopback-agent.ts';
import { untilMetric } from '../support/until-metric.ts';

const ip = '127.0.0.11';
const instanceTarget = '/metadata/instance?api-version=2021-02-01';

function requestOf(target: string): string {
  return `GET ${target} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n`;
}

async function dial(port: number, localAddress = ip): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress, noDelay: true });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Everything received until the agent ends the connection. */
async function readToEnd(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk));
  await once(socket, 'end');
  return text;
}

/** Sends these requests and ends the sending half. */
async function askHalfClosed(port: number, ...targets: readonly string[]): Promise<string> {
  const socket = await dial(port);
  socket.end(targets.map(requestOf).join(''));
  return readToEnd(socket);
}

for (const fastPath of ['true', 'false']) {
  const flags = { 'fast-path': fastPath };

  describe(`a client that half-closes its connection, with --fast-path=${fastPath}`, () => {
    it('gets a cached token, and one that has to be fetched', async () => {
      await using agent = await openLoopbackAgent(flags, bindPodToA);
      await agent.imds.setFaults({ delayMs: 200 });
      for (let turn = 0; turn < 2; turn++) {
        const text = await askHalfClosed(agent.port, tokenTarget);
        assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
        assert.match(text, /"access_token":".+"\}$/s);
      }
      assert.equal(agent.imds.requests().length, 1);
    });

    it('gets the token of a binding that arrives while its request waits', async () => {
      await using agent = await openLoopbackAgent(
        flags,
        (kube) => {
          kube.apply(createAzureIdentity({ name: 'a', ...idsOf(identityA) }));
          kube.apply(
            createPodManifest({ name: 'p', nodeName: 'node-1', ips: [ip], binding: 'app' }),
          );
        },
        { tuning: { lateObjectWaitMs: 10_000 } },
      );
      const answer = askHalfClosed(agent.port, tokenTarget);
      await untilMetric(agent, 'nmi_waiting_requests', 1);
      agent.kube.apply(
        createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }),
      );
      assert.match(await answer, /^HTTP\/1\.1 200 OK\r\n.*"access_token":".+"\}$/s);
    });

    it('gets instance metadata', async () => {
      await using agent = await openLoopbackAgent(flags, bindPodToA);
      await agent.imds.setFaults({ delayMs: 200 });
      const whole = await ask(agent.client(ip), instanceTarget);
      assert.equal(whole.status, 200);
      const text = await askHalfClosed(agent.port, instanceTarget);
      assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
      assert.ok(text.endsWith(whole.text), text);
    });

    it('gets the answers to all its requests, in their order', async () => {
      await using agent = await openLoopbackAgent(flags, bindPodToA);
      await agent.imds.setFaults({ delayMs: 200 });
      const other = tokenTarget.replace('vault', 'other');
      const text = await askHalfClosed(agent.port, tokenTarget, '/nothing', other, instanceTarget);
      const statuses = [...text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => status);
      assert.deepEqual(statuses, ['200', '404', '200', '200']);
    });
  });
}

describe('requests of half-closed connections', () => {
  it('count towards the waiting requests of their pod', async () => {
    // While no time passes, only a request that does not wait is answered.
    const clock = new HandClock(Date.now());
    await using agent = await openLoopbackAgent({}, () => undefined, {
      clock,
      tuning: { lateObjectWaitMs: 2_000 },
    });
    const waiting = Array.from({ length: 32 }, () => askHalfClosed(agent.port, tokenTarget));
    await untilMetric(agent, 'nmi_waiting_requests', 32);
    const oneMore = await ask(agent.client(ip), tokenTarget);
    assert.equal(oneMore.status, 503, 'its pod has no free place to wait');
    clock.advance(2_000);
    for (const text of await Promise.all(waiting)) assert.match(text, /^HTTP\/1\.1 503 /);
  });
});

/** Its requests wait until the test answers them. */
async function openWaitingListener() {
  const waiting: ((handled: Handled) => void)[] = [];
  const listener = await openBareListener({
    handle: () => new Promise<Handled>((resolve) => waiting.push(resolve)),
  });
  const untilWaiting = () => eventually(() => assert.equal(waiting.length, 1, 'requests waiting'));
  return { listener, waiting, untilWaiting };
}

describe('a connection with a half-closed client', { timeout: 120_000 }, () => {
  it('gets an answer that is larger than the kernel accepts at once', async () => {
    const { listener, waiting, untilWaiting } = await openWaitingListener();
    await using _ = listener;
    const body = 'x'.repeat(20_000_000);
    const socket = await dial(listener.port);
    socket.end(requestOf('/'));
    const reading = readToEnd(socket);
    await untilWaiting();
    await delay(100);
    waiting[0]?.({ reason: 'ok', status: 200, body });
    const text = await reading;
    assert.equal(text.length - text.indexOf('\r\n\r\n') - 4, body.length);
    await eventually(() => assert.equal(listener.connections, 0, 'connections'));
  });

  it('keeps its place until the answer is written, when the client has closed completely', async () => {
    const { listener, waiting, untilWaiting } = await openWaitingListener();
    await using _ = listener;
    const socket = await dial(listener.port);
    socket.write(requestOf('/'));
    await untilWaiting();
    socket.destroy();
    await delay(100);
    assert.equal(listener.connections, 1, 'it looks like a half-closed one');
    waiting[0]?.({ reason: 'ok', status: 200, body: 'x' });
    await eventually(() => assert.equal(listener.connections, 0, 'connections'));
  });

  it('loses its place at once when the client resets it', async () => {
    const { listener, untilWaiting } = await openWaitingListener();
    await using _ = listener;
    const socket = await dial(listener.port);
    socket.write(requestOf('/'));
    await untilWaiting();
    socket.resetAndDestroy();
    await eventually(() => assert.equal(listener.connections, 0, 'connections'));
  });

  it('is closed without a request, or after half of one', async () => {
    const { listener } = await openWaitingListener();
    await using _ = listener;
    const silent = await dial(listener.port);
    silent.end();
    assert.equal(await readToEnd(silent), '');
    const half = await dial(listener.port);
    half.end('GET / HT');
    assert.match(await readToEnd(half), /^HTTP\/1\.1 400 /);
    await eventually(() => assert.equal(listener.connections, 0, 'connections'));
  });
});
