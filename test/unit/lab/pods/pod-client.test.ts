import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fabricAddresses, openFabric } from '../../../../lab/fabric/fabric.ts';
import { openFakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { createNodeIdentity } from '../../../../lab/fakes/identity.ts';
import { openFabricPod, openLoopbackPod, type PodClient } from '../../../../lab/pods/pod-client.ts';
import { findHeader, type PodAnswer, type PodRequest } from '../../../../lab/pods/pod-protocol.ts';
import { fabricSkip, supportCommand } from '../../../kernel/lab/support/fabric-pod.ts';
import { openEcho, openRaw } from '../../../kernel/lab/support/imds-server.ts';

interface Peer {
  readonly host: string;
  readonly port: number;
}

interface TestBed {
  readonly pod: PodClient;
  readonly ip: string;
  readonly echo: Peer;
  readonly raw: Peer;
  /** No process listens there. */
  readonly refusing: Peer;
}

async function openLoopbackTestBed(stack: AsyncDisposableStack): Promise<TestBed> {
  const host = '127.0.0.1';
  const echo = await openEcho(host, 0);
  const raw = await openRaw(host, 0);
  const closed = await openRaw(host, 0);
  const peers = [echo, raw, closed].map((server) => ({
    host,
    port: (server.address() as AddressInfo).port,
  }));
  closed.close();
  stack.defer(() => {
    echo.closeAllConnections();
    echo.close();
    raw.close();
  });
  const systemAssigned = createNodeIdentity();
  const imds = stack.use(await openFakeImds({ host, port: 0, nodeIps: [], systemAssigned }));
  const ip = '127.0.0.77';
  const pod = stack.use(openLoopbackPod({ name: 'web', sourceIp: ip, host, port: imds.port }));
  const [echoing, talking, refusing] = peers as [Peer, Peer, Peer];
  return { pod, ip, echo: echoing, raw: talking, refusing };
}

async function openFabricTestBed(stack: AsyncDisposableStack): Promise<TestBed> {
  const fabric = stack.use(await openFabric({ name: 'contract' }));
  const { ip } = await fabric.addPod('web');
  const host = fabricAddresses.imdsIp;
  const [program, script] = supportCommand('imds-server.ts');
  const server = fabric.exec('azure', program, [script, host], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  assert.ok(server.stdout !== null);
  const listening = once(createInterface({ input: server.stdout }), 'line');
  const pod = stack.use(await openFabricPod({ fabric, space: 'web' }));
  await listening;
  const peer = (port: number): Peer => ({ host, port });
  return { pod, ip, echo: peer(8001), raw: peer(8002), refusing: peer(8003) };
}

interface Echo {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  readonly body: string;
  readonly from: string;
  readonly fromPort: number;
}

function readEcho(answer: PodAnswer): Echo {
  assert.ok(answer.outcome === 'answered' && answer.status === 200);
  return JSON.parse(answer.body) as Echo;
}

const plain: PodRequest = {
  method: 'GET',
  target: '/',
  headers: [],
  connection: 'new',
  timeoutMs: 5_000,
};
const tokenTarget = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x/';
const metadata = ['Metadata', 'true'];

for (const [name, skip, open] of [
  ['a pod on a loopback address', false, openLoopbackTestBed],
  ['a pod in a namespace', fabricSkip, openFabricTestBed],
] as const) {
  describe(name, { skip }, () => {
    const stack = new AsyncDisposableStack();
    let testBed: TestBed;
    before(async () => {
      testBed = await open(stack);
    });
    after(() => stack.disposeAsync());

    const ask = (request: Partial<PodRequest>, peer = testBed.echo) =>
      testBed.pod.request({ ...plain, ...peer, ...request });

    test('a request comes from the address of the pod, by default to the metadata service', async () => {
      const answer = await testBed.pod.request({
        ...plain,
        target: tokenTarget,
        headers: metadata,
      });
      assert.equal(answer.outcome === 'answered' && answer.status, 200);
      assert.match(findHeader(answer, 'SERVER') ?? '', /^IMDS\//);
      assert.equal(readEcho(await ask({})).from, testBed.ip);
    });

    test('headers keep order, case and duplicates, and nothing is added but Host and Connection', async () => {
      const { host, port } = testBed.echo;
      const sent = ['metadata', 'true', 'X-B', '1', 'Metadata', 'TRUE', 'x-b', '2'];
      for (const [headers, expected] of [
        [sent, ['Host', `${host}:${String(port)}`, ...sent, 'Connection', 'close']],
        [
          ['HOST', 'other'],
          ['HOST', 'other', 'Connection', 'close'],
        ],
      ] as const) {
        assert.deepEqual(readEcho(await ask({ headers })).headers, expected);
      }
      const answer = await ask({});
      assert.ok(answer.outcome === 'answered');
      const twice = answer.headers.filter(([header]) => header === 'X-Twice');
      assert.deepEqual(twice.flat(), ['X-Twice', 'one', 'X-Twice', 'two']);
    });

    test('targets, methods and bodies are sent unchanged, also those that an HTTP library would refuse', async () => {
      for (const target of [
        '/metadata/identity\\oauth2\\token?x=1',
        '//a/../b/./%5c%2f?q=https://x/y&q=%zz',
        'http://169.254.169.254/metadata/instance?a=b',
        '*',
      ]) {
        assert.equal(readEcho(await ask({ target })).target, target);
      }
      for (const [request, line] of [
        [{ target: '/a b\tc', method: 'G@T' }, 'G@T /a b\tc HTTP/1.1'],
        [{ httpVersion: '1.0' }, 'GET / HTTP/1.0'],
      ] as const) {
        const answer = await ask(request, testBed.raw);
        assert.equal(answer.outcome === 'answered' && answer.body, line);
      }
      const { method, body, headers } = readEcho(await ask({ method: 'POST', body: 'resource=ü' }));
      assert.deepEqual([method, body], ['POST', 'resource=ü']);
      assert.equal(headers[headers.indexOf('Content-Length') + 1], '11');
    });

    test('a named connection is kept for its next requests and closed on demand', async () => {
      const first = await ask({ connection: 'a' });
      const second = await ask({ connection: 'a' });
      const other = await ask({ connection: 'b' });
      await testBed.pod.closeConnection('a');
      const third = await ask({ connection: 'a' });
      for (const each of ['unheard of', 'a', 'b']) await testBed.pod.closeConnection(each);
      const reused = [first, second, other, third].map(
        (answer) => answer.outcome === 'answered' && answer.reusedConnection,
      );
      assert.deepEqual(reused, [false, true, false, false]);
      const [one, two, last] = [first, second, third].map((answer) => readEcho(answer).fromPort);
      assert.ok(one === two && one !== last);
    });

    test('a request fails with the code of what happened to it', async () => {
      for (const [request, peer, error] of [
        [{ target: '/slow', timeoutMs: 60 }, testBed.echo, 'TIMEOUT'],
        [{ target: '/reset' }, testBed.echo, 'ECONNRESET'],
        [{}, testBed.refusing, 'ECONNREFUSED'],
        [{ target: '/a b' }, testBed.refusing, 'ECONNREFUSED'],
      ] as const) {
        const answer = await ask(request, peer);
        assert.equal(answer.outcome === 'failed' && answer.error, error);
        const took = `${answer.ownMs} of ${answer.durationMs} ms`;
        assert.ok(answer.ownMs < 2_000 && (error !== 'TIMEOUT' || answer.durationMs >= 50), took);
      }
    });

    for (const newConnectionPerRequest of [false, true]) {
      const how = newConnectionPerRequest ? 'new' : 'kept';
      test(`a load over ${how} connections is counted by outcome and identity`, async () => {
        const report = await testBed.pod.load({
          targets: [metadata, []].map((headers) => ({ target: tokenTarget, headers })),
          durationMs: 200,
          concurrency: 3,
          newConnectionPerRequest,
          timeoutMs: 1_000,
        });
        const { counts, requests, successes, latencyMs, maxGapMs, elapsedMs } = report;
        const rows = counts.map(({ target, outcome, identity }) =>
          [target, outcome, identity ?? '-'].join(' '),
        );
        assert.deepEqual(rows.toSorted(), ['0 200 node', '1 400 -']);
        const total = counts.reduce((sum, row) => sum + row.count, 0);
        assert.ok(total === requests && successes > 1 && successes < requests);
        const { p50, p99, max } = latencyMs;
        assert.ok(p50 > 0 && p50 <= p99 && p99 <= max, JSON.stringify(latencyMs));
        assert.ok(maxGapMs > 0 && maxGapMs < elapsedMs && elapsedMs >= 200);
      });
    }

    test('a load that is refused has one gap of its whole duration and does not spin', async () => {
      const { counts, requests, maxGapMs, elapsedMs } = await testBed.pod.load({
        targets: [{ target: '/', headers: [] }],
        durationMs: 100,
        concurrency: 1,
        newConnectionPerRequest: true,
        timeoutMs: 1_000,
        ...testBed.refusing,
      });
      const outcomes = counts.map(({ outcome }) => outcome);
      assert.deepEqual(outcomes, ['ECONNREFUSED']);
      // At least so much of 100 ms counts, however long the machine stands still.
      assert.ok(maxGapMs >= 20 && maxGapMs <= elapsedMs);
      assert.ok(requests <= 60, String(requests));
    });
  });
}

test(
  'a pod whose process ends fails waiting requests, and later ones',
  { skip: fabricSkip },
  async () => {
    await using fabric = await openFabric({ name: 'gone' });
    await fabric.addPod('web');
    const absent = openFabricPod({ fabric, space: 'web', command: ['/nowhere/nmi'] });
    await assert.rejects(absent, /\/nowhere\/nmi/);
    await using pod = await openFabricPod({ fabric, space: 'web' });
    const hanging = pod.load({
      targets: [{ target: '/', headers: [] }],
      durationMs: 60_000,
      concurrency: 1,
      newConnectionPerRequest: true,
      timeoutMs: 100,
    });
    const told = assert.rejects(hanging, { code: 'POD_GONE' });
    await fabric.removePod('web');
    await told;
    await assert.rejects(pod.request(plain), { code: 'POD_GONE' });
  },
);
