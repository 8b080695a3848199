import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';

import { openFakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import { fabricAddresses, openFabric } from '../../../lab/fabric/fabric.ts';
import { createNodeIdentity } from '../../../lab/fakes/identity.ts';
import { openFabricPod, openLoopbackPod, type PodClient } from '../../../lab/pods/pod-client.ts';
import { findHeader, type PodAnswer, type PodRequest } from '../../../lab/pods/pod-protocol.ts';
import { fabricSkip, supportCommand } from '../support/fabric-pod.ts';
import { openEcho, openRaw } from '../support/imds-server.ts';

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
  const peerOf = (server: { address(): unknown; close(): unknown }): Peer => {
    stack.defer(() => {
      server.close();
    });
    return { host, port: (server.address() as AddressInfo).port };
  };
  const echoServer = await openEcho(host, 0);
  stack.defer(() => {
    echoServer.closeAllConnections();
  });
  const echo = peerOf(echoServer);
  const raw = peerOf(await openRaw(host, 0));
  const closed = await openRaw(host, 0);
  const refusing = { host, port: (closed.address() as AddressInfo).port };
  closed.close();
  const imds = stack.use(
    await openFakeImds({
      host,
      port: 0,
      nodeIps: [],
      systemAssigned: createNodeIdentity(),
    }),
  );
  const ip = '127.0.0.77';
  const pod = stack.use(openLoopbackPod({ name: 'web', sourceIp: ip, host, port: imds.port }));
  return { pod, ip, echo, raw, refusing };
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
  return {
    pod,
    ip,
    echo: { host, port: 8001 },
    raw: { host, port: 8002 },
    refusing: { host, port: 8003 },
  };
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
  assert.equal(answer.outcome, 'answered');
  assert.equal(answer.status, 200);
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

function contract(
  name: string,
  skip: string | false,
  open: (stack: AsyncDisposableStack) => Promise<TestBed>,
): void {
  describe(name, { skip }, () => {
    const stack = new AsyncDisposableStack();
    let testBed: TestBed;
    before(async () => {
      testBed = await open(stack);
    });
    after(() => stack.disposeAsync());

    const ask = (request: Partial<PodRequest>, peer = testBed.echo) =>
      testBed.pod.request({ ...plain, ...peer, ...request });

    test('a request without a host goes to the metadata address', async () => {
      const answer = await testBed.pod.request({
        ...plain,
        target: tokenTarget,
        headers: ['Metadata', 'true'],
      });
      assert.equal(answer.outcome === 'answered' && answer.status, 200);
      assert.match(findHeader(answer, 'SERVER') ?? '', /^IMDS\//);
    });

    test('a connection comes from the address of the pod', async () => {
      assert.equal(readEcho(await ask({})).from, testBed.ip);
    });

    test('headers arrive in order and case with their duplicates, and nothing is added but Host and Connection', async () => {
      const headers = ['metadata', 'true', 'X-B', '1', 'Metadata', 'TRUE', 'x-b', '2'];
      const echo = readEcho(await ask({ headers }));
      const { host, port } = testBed.echo;
      const expected = ['Host', `${host}:${String(port)}`, ...headers, 'Connection', 'close'];
      assert.deepEqual(echo.headers, expected);
      const named = readEcho(await ask({ headers: ['HOST', 'other'] }));
      assert.deepEqual(named.headers, ['HOST', 'other', 'Connection', 'close']);
    });

    test('the answer keeps its duplicate headers', async () => {
      const answer = await ask({});
      assert.ok(answer.outcome === 'answered');
      const twice = answer.headers.filter(([header]) => header === 'X-Twice');
      assert.deepEqual(twice, [
        ['X-Twice', 'one'],
        ['X-Twice', 'two'],
      ]);
    });

    for (const target of [
      '/metadata/identity\\oauth2\\token?x=1',
      '//a/../b/./%5c%2f?q=https://x/y&q=%zz',
      'http://169.254.169.254/metadata/instance?a=b',
      '*',
    ]) {
      test(`the target ${target} is sent unchanged`, async () => {
        assert.equal(readEcho(await ask({ target })).target, target);
      });
    }

    test('a request that an HTTP library would refuse is sent unchanged', async () => {
      const spaced = await ask({ target: '/a b\tc', method: 'G@T' }, testBed.raw);
      assert.equal(spaced.outcome === 'answered' && spaced.body, 'G@T /a b\tc HTTP/1.1');
      const old = await ask({ httpVersion: '1.0' }, testBed.raw);
      assert.equal(old.outcome === 'answered' && old.body, 'GET / HTTP/1.0');
    });

    test('a body is sent with its length', async () => {
      const echo = readEcho(await ask({ method: 'POST', body: 'resource=ü' }));
      assert.equal(echo.method, 'POST');
      assert.equal(echo.body, 'resource=ü');
      assert.equal(echo.headers[echo.headers.indexOf('Content-Length') + 1], '11');
    });

    test('a named connection is kept for its next requests and closed on demand', async () => {
      const first = await ask({ connection: 'a' });
      const second = await ask({ connection: 'a' });
      const other = await ask({ connection: 'b' });
      await testBed.pod.closeConnection('a');
      const third = await ask({ connection: 'a' });
      await testBed.pod.closeConnection('unheard of');
      const reused = [first, second, other, third].map(
        (answer) => answer.outcome === 'answered' && answer.reusedConnection,
      );
      assert.deepEqual(reused, [false, true, false, false]);
      assert.equal(readEcho(first).fromPort, readEcho(second).fromPort);
      assert.notEqual(readEcho(first).fromPort, readEcho(third).fromPort);
      await testBed.pod.closeConnection('a');
      await testBed.pod.closeConnection('b');
    });

    test('a request that is not answered in time fails with TIMEOUT', async () => {
      const answer = await ask({ target: '/slow', timeoutMs: 60 });
      assert.equal(answer.outcome === 'failed' && answer.error, 'TIMEOUT');
      assert.ok(
        answer.durationMs >= 50 && answer.ownMs < 2_000,
        `${answer.ownMs} of ${answer.durationMs} ms`,
      );
    });

    test('a refused and a reset connection fail with their codes', async () => {
      const refused = await ask({}, testBed.refusing);
      assert.equal(refused.outcome === 'failed' && refused.error, 'ECONNREFUSED');
      const reset = await ask({ target: '/reset' });
      assert.equal(reset.outcome === 'failed' && reset.error, 'ECONNRESET');
      const raw = await ask({ target: '/a b' }, testBed.refusing);
      assert.equal(raw.outcome === 'failed' && raw.error, 'ECONNREFUSED');
    });

    for (const newConnectionPerRequest of [false, true]) {
      const how = newConnectionPerRequest ? 'new' : 'kept';
      test(`a load over ${how} connections is counted by outcome and identity`, async () => {
        const report = await testBed.pod.load({
          targets: [
            { target: tokenTarget, headers: ['Metadata', 'true'] },
            { target: tokenTarget, headers: [] },
          ],
          durationMs: 200,
          concurrency: 3,
          newConnectionPerRequest,
          timeoutMs: 1_000,
        });
        const rows = report.counts
          .map(({ target, outcome, identity }) => [target, outcome, identity ?? '-'].join(' '))
          .toSorted();
        assert.deepEqual(rows, ['0 200 node', '1 400 -']);
        const total = report.counts.reduce((sum, row) => sum + row.count, 0);
        assert.equal(total, report.requests);
        assert.ok(report.successes > 1 && report.successes < report.requests);
        const { p50, p99, max } = report.latencyMs;
        assert.ok(p50 > 0 && p50 <= p99 && p99 <= max, JSON.stringify(report.latencyMs));
        assert.ok(report.maxGapMs > 0 && report.maxGapMs < report.elapsedMs);
        assert.ok(report.elapsedMs >= 200);
      });
    }

    test('a load that is refused has one gap of its whole duration and does not spin', async () => {
      const report = await testBed.pod.load({
        targets: [{ target: '/', headers: [] }],
        durationMs: 100,
        concurrency: 1,
        newConnectionPerRequest: true,
        timeoutMs: 1_000,
        ...testBed.refusing,
      });
      assert.deepEqual(
        report.counts.map((row) => row.outcome),
        ['ECONNREFUSED'],
      );
      // At least so much of 100 ms counts, however long the machine stands still.
      assert.ok(report.maxGapMs >= 20 && report.maxGapMs <= report.elapsedMs);
      assert.ok(report.requests <= 60, String(report.requests));
    });
  });
}

contract('a pod on a loopback address', false, openLoopbackTestBed);
contract('a pod in a namespace', fabricSkip, openFabricTestBed);

describe('a pod whose process ends', { skip: fabricSkip }, () => {
  test('fails waiting requests, and later ones', async () => {
    await using fabric = await openFabric({ name: 'gone' });
    await fabric.addPod('web');
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
  });

  test('a missing program is named', async () => {
    await using fabric = await openFabric({ name: 'absent' });
    await fabric.addPod('web');
    await assert.rejects(
      openFabricPod({ fabric, space: 'web', command: ['/nowhere/nmi'] }),
      /\/nowhere\/nmi/,
    );
  });
});
