/**
 * What only a real process has: sockets of a kernel, and the clocks of Node's HTTP. Pods end connections in every way
 * while what the agent depends on fails, and nothing of it is left behind. Who gets which token in such times, the
 * simulation checks.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ImdsFaults } from '../../../lab/fakes/imds/fake-imds.ts';
import type { FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import { createPodManifest } from '../../../lab/fakes/kube/manifests.ts';
import { openLoopbackPod } from '../../../lab/pods/pod-client.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { nodeName, openServices, type Services } from './agent-child.ts';

const ip = '127.0.0.11';
const leavingIp = '127.0.0.12';
const otherIp = '127.0.0.13';
const unknownIp = '127.0.0.14';

/** Limits of requests in flight: of one pod, and of all pods together at the metadata service. */
const [fetchesOfPod, heldOfPod, fetchesAtOnce] = [50, 32, 4];
const tooMany = 8;

const requestOf = (target: string, ...headers: readonly string[]): string =>
  `${[`GET ${target} HTTP/1.1`, 'Host: h', 'Metadata: true', ...headers].join('\r\n')}\r\n\r\n`;
const request = requestOf(tokenTarget);
const fresh = requestOf(`${tokenTarget}&bypass_cache=true`);
const instance = requestOf('/metadata/instance?api-version=2021-02-01');

type End = 'half-closed' | 'reset' | 'left to the agent';

/** What a pod sends in how many pieces, and how it ends the connection. */
const manners: readonly (readonly [bytes: string, pieces: number, end: End])[] = [
  [request.repeat(7), 1, 'half-closed'],
  [fresh.repeat(3) + instance, 1, 'half-closed'],
  [fresh.repeat(3) + instance, 1, 'reset'],
  [fresh, 20, 'reset'],
  [instance, 20, 'half-closed'],
  [request.slice(0, 60), 1, 'half-closed'],
  [request.slice(0, 60), 1, 'reset'],
  ['', 1, 'reset'],
  ['CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n', 1, 'reset'],
  [`${request}GARBAGE\r\n\r\n`, 1, 'left to the agent'],
  [requestOf('/', 'Content-Length: 5', 'Transfer-Encoding: chunked'), 1, 'left to the agent'],
  [requestOf('/', 'Upgrade: h2c', 'Connection: Upgrade', 'Expect: foo'), 2, 'half-closed'],
  [requestOf('/', `X: ${'x'.repeat(20_000)}`), 3, 'left to the agent'],
];

const imdsFaults: readonly ImdsFaults[] = [
  { delayMs: 150 },
  { hang: true, paths: 'token' },
  { fail: { status: 429, retryAfterSec: 1 } },
  { closed: true },
  { fail: { status: 500 } },
];

const kubeFaults: readonly ((kube: FakeKube) => void)[] = [
  (kube) => kube.cutConnections(),
  (kube) => {
    kube.compact();
    kube.closeWatches();
  },
  (kube) => {
    kube.faults.cutNextWatchAfterBytes = 100;
    kube.closeWatches();
  },
  (kube) => kube.injectIntoWatches('{"type":"BROKEN"\n'),
  (kube) => kube.faults.failNext(5, 500),
];

/** Sends it, and ends when the connection has closed. */
async function behave(
  port: number,
  localAddress: string,
  [bytes, pieces, end]: (typeof manners)[number],
): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port, localAddress, noDelay: true });
  const closed = new Promise<void>((resolve) => void socket.once('close', () => resolve()));
  socket.on('error', () => undefined).resume();
  const size = Math.max(1, Math.ceil(bytes.length / pieces));
  for (let at = 0; at < bytes.length; at += size) {
    socket.write(bytes.slice(at, at + size), 'latin1');
    if (pieces > 1) await delay(5);
  }
  if (end === 'half-closed') socket.end();
  if (end === 'reset') {
    await delay(20);
    socket.resetAndDestroy();
  }
  await closed;
}

/** Each time the pod is gone while its connections are ending. */
async function comeAndGo({ kube, listenPort }: Services, name: string): Promise<void> {
  kube.apply(createPodManifest({ name, nodeName, ips: [leavingIp], binding: 'app' }));
  const all = manners.map((manner) => behave(listenPort, leavingIp, manner));
  await delay(50);
  kube.delete({ kind: 'Pod', name });
  await Promise.all(all);
}

/** Each request is for a different token. */
async function askAtOnce({ listenPort: port }: Services, sourceIp: string, count: number) {
  await using client = openLoopbackPod({ name: sourceIp, sourceIp, host: '127.0.0.1', port });
  const targets = Array.from({ length: count }, (_, index) =>
    tokenTarget.replace('vault.azure.net', `${sourceIp}/${index}`),
  );
  return await Promise.all(targets.map((target) => ask(client, target)));
}

function assertBetween(value: number, low: number, high: number, what: string): void {
  assert.ok(value >= low && value <= high, `${what}: ${value}, not ${low} to ${high}`);
}

/** If a pod sends more requests at once than its limit, only the excess is refused. */
async function assertSharesGivenBack(testBed: Services): Promise<void> {
  const { imds, kube } = testBed;
  kube.apply(createPodManifest({ name: 'other', nodeName, ips: [otherIp], binding: 'app' }));
  await eventually(async () => {
    for (const { status } of await askAtOnce(testBed, otherIp, 1)) assert.equal(status, 200);
  });
  await imds.setFaults({ delayMs: 200 });
  imds.clear();
  // Of two pods, because one pod alone may use three of the four.
  const both = [ip, otherIp];
  const replies = await Promise.all(
    both.map((each) => askAtOnce(testBed, each, fetchesOfPod + tooMany)),
  );
  for (const [index, ofPod] of replies.entries()) {
    const refused = ofPod.filter(({ status }) => status === 429).length;
    assertBetween(refused, 1, tooMany, `fetches for ${both[index] ?? ''} that were refused`);
    assert.equal(ofPod.filter(({ status }) => status === 200).length, ofPod.length - refused);
  }
  assert.equal(imds.peakTokenConcurrency(), fetchesAtOnce);
  const unknown = await askAtOnce(testBed, unknownIp, heldOfPod + tooMany);
  assert.ok(unknown.every(({ status }) => status === 503));
  const notHeld = unknown.filter(({ durationMs }) => durationMs < tuning.lateObjectWaitMs - 20);
  assertBetween(notHeld.length, 1, tooMany, 'requests that were not held');
}

describe('the agent process among pods and services that fail', { timeout: 300_000 }, () => {
  it('ends only connections, and leaves nothing behind', async () => {
    await using testBed = await openServices();
    const { kube, imds, listenPort, flags, pod } = testBed;
    // Anything logged at this level is a bug.
    const agent = testBed.start([...flags, '--log-level=error']);
    await testBed.untilReady();
    for (const [round, faults] of imdsFaults.entries()) {
      await imds.setFaults(faults);
      kubeFaults[round]?.(kube);
      await Promise.all([
        ...manners.map((manner) => behave(listenPort, ip, manner)),
        comeAndGo(testBed, `gone-${round}`),
      ]);
      // A hanging request continues to hang, until its connection is closed.
      await imds.setFaults({ closed: true });
    }
    await imds.setFaults({});

    const valueOf = async (series: string): Promise<number> => {
      const { text = '' } = (await testBed.page('metrics')) ?? {};
      const line = text.split('\n').find((each) => each.startsWith(`${series} `));
      return Number(line?.slice(series.length));
    };
    // A request without its client runs to its end: ten seconds at most.
    await eventually(async () => {
      for (const series of ['nmi_connections', 'nmi_waiting_requests'])
        assert.equal(await valueOf(series), 0, series);
    }, 30_000);
    await eventually(async () => assert.equal((await ask(pod, tokenTarget)).identity, 'a'), 30_000);
    await assertSharesGivenBack(testBed);
    const bugs = 'nmi_watch_errors_total{resource="pods",kind="exception"}';
    assert.equal(await valueOf(bugs), 0);
    const page = (await testBed.page('metrics'))?.text ?? '';
    assert.doesNotMatch(page, /^nmi_.*(?:reason="internal_error"|kind="exception").* [1-9]/m);
    agent.signal('SIGTERM');
    assert.equal(await agent.exited, 0);
    assert.equal(agent.stderr() + agent.stdout(), '');
  });
});
