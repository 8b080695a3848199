import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { asRecord } from '../../../../src/base/json-value.ts';
import { openKubeClient, type KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { OverlongLine } from '../../../../src/nmi/kube/api/json-lines.ts';
import { clientOf, eventually, rawPod, temporaryDir } from './kube-test-bed.ts';

const silenceMs = 5_000;
const streamPath = '/api/v1/pods?watch=true&sendInitialEvents=true';

async function readAll(events: AsyncIterable<unknown>, into: unknown[] = []): Promise<unknown[]> {
  for await (const event of events) into.push(event);
  return into;
}

/** A server that answers each request in one way, compressed, and a client of it. */
async function openServer(answer: (response: ServerResponse) => void) {
  await using opening = new AsyncDisposableStack();
  const server = createServer((_, response) => {
    response.setHeader('content-encoding', 'gzip');
    answer(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  opening.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const dir = opening.use(await temporaryDir());
  const kubeconfigPath = join(dir.path, 'config');
  const cluster = { name: 'c', cluster: { server: `http://127.0.0.1:${port}` } };
  const context = { name: 'c', context: { cluster: 'c', user: 'c' } };
  const config = { clusters: [cluster], users: [{ name: 'c', user: {} }], contexts: [context] };
  await writeFile(kubeconfigPath, JSON.stringify({ ...config, 'current-context': 'c' }));
  const client: KubeClient = opening.use(await openKubeClient({ kubeconfigPath, userAgent: 'x' }));
  const owned = opening.move();
  return {
    client,
    connections: () =>
      new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count))),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe('compressed answers of the API server', () => {
  it('are requested and read', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    for (let index = 0; index < 500; index += 1) fake.apply(rawPod(`pod-${index}`));
    const list = asRecord(await client.getJson('/api/v1/pods', { maxBytes: 1 << 30 }));
    assert.ok(Array.isArray(list?.['items']) && list['items'].length === 500);
    await client.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    assert.deepEqual(
      fake.requests.map(({ acceptEncoding }) => acceptEncoding),
      ['gzip', ''],
    );
  });

  it('of a stream are read event by event, each when it is sent', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply(rawPod('first'));
    const events: unknown[] = [];
    const watching = readAll(client.watch(streamPath, { silenceMs }), events);
    await eventually('the list', () => events.length === 2);
    for (let index = 0; index < 20; index += 1) {
      fake.apply(rawPod(`pod-${index}`));
      await eventually('an event', () => events.length === 3 + index);
    }
    fake.closeWatches();
    await watching;
    assert.equal(events.length, 22);
  });

  it('are limited by their decompressed size, and the rest is not read', async () => {
    // 256 MiB in 256 KiB.
    const bomb = gzipSync(Buffer.alloc(256 << 20, ' '));
    await using server = await openServer((response) => response.end(bomb));
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(server.client.getJson('/api/v1/pods'), { code: 'TOO_LARGE' });
    assert.ok(process.memoryUsage().arrayBuffers - before < 32 << 20);
    await closed(server);
  });

  it('with an event that is too long name it and go on', async () => {
    const event = (name: string, text: string) =>
      JSON.stringify({ type: 'ADDED', object: { metadata: { name }, text } });
    const lines = `${event('a', 'x'.repeat(64 << 20))}\n${event('b', 'x')}\n`;
    await using server = await openServer((response) => response.end(gzipSync(lines)));
    const [first, second, ...none] = await readAll(server.client.watch('/w', { silenceMs }));
    assert.ok(first instanceof OverlongLine && first.beginning.includes('"a"'));
    assert.ok(JSON.stringify(second).includes('"b"'));
    assert.deepEqual(none, []);
  });

  it('fail with NETWORK if they are cut, and with MALFORMED if they are not gzip', async () => {
    const whole = gzipSync('{"items":[]}');
    for (const [bytes, code] of [
      [whole.subarray(0, 20), 'NETWORK'],
      [Buffer.from('{"items":[]}'), 'MALFORMED'],
      [Buffer.concat([whole, Buffer.from('{}')]), 'MALFORMED'],
    ] as const) {
      await using server = await openServer((response) => response.end(bytes));
      await assert.rejects(server.client.getJson('/api/v1/pods'), { code });
      await assert.rejects(readAll(server.client.watch('/w', { silenceMs })), { code });
    }
  });

  it('of a refusal are read for its reason', async () => {
    const body = gzipSync(JSON.stringify({ kind: 'Status', message: 'no, because' }));
    await using server = await openServer((response) => response.writeHead(403).end(body));
    await assert.rejects(server.client.getJson('/api/v1/pods'), /no, because/);
  });

  it('leave no connection when the reader of a stream stops', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    for (let index = 0; index < 500; index += 1) fake.apply(rawPod(`pod-${index}`));
    for await (const _ of client.watch(streamPath, { silenceMs })) break;
    await eventually('no connection is left', () => fake.connections === 0);
    const stop = new AbortController();
    const watch = client.watch(streamPath, { silenceMs, signal: stop.signal });
    const reading = readAll(watch);
    await eventually('a watch', () => fake.watches() === 1);
    stop.abort(new Error('enough'));
    await assert.rejects(reading, /^Error: enough$/);
    await eventually('no connection is left', () => fake.connections === 0);
  });
});

async function closed(server: { connections(): Promise<number> }): Promise<void> {
  while ((await server.connections()) > 0) await new Promise((resolve) => setTimeout(resolve, 2));
}
