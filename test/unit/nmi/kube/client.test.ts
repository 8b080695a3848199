import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { openKubeClient, type KubeCalls } from '../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { NodeImpersonation } from '../../../../src/nmi/kube/api/node-impersonation.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { asRecord } from '../../../../src/base/json-value.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  clientOf,
  countingClock,
  eventually,
  keptLog,
  rawPod,
  temporaryDir,
} from './kube-test-bed.ts';

function isKubeError(code: string, status?: number): (error: unknown) => boolean {
  return (error) =>
    error instanceof KubeError &&
    error.code === code &&
    (status === undefined || error.status === status);
}

async function firstOf(events: AsyncIterable<unknown>): Promise<unknown> {
  for await (const event of events) return event;
  return undefined;
}

describe('the credentials library', () => {
  it('can be imported by file', async () => {
    const { KubeConfig } = await import('@kubernetes/client-node/dist/config.js');
    assert.equal(typeof new KubeConfig().applyToHTTPSOptions, 'function');
  });
});

describe('a request of the Kubernetes client', () => {
  it('gets and posts JSON, identifies itself, and keeps its connections', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    await client.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    const pod = asRecord(await client.getJson('/api/v1/namespaces/default/pods/one'));
    assert.equal(asRecord(pod?.['metadata'])?.['name'], 'one');
    assert.deepEqual(
      fake.requests.map(({ method, userAgent }) => `${method} ${userAgent}`),
      ['POST nmi-test/1', 'GET nmi-test/1'],
    );
    for (let round = 0; round < 20; round += 1) await client.getJson('/api/v1/pods');
    assert.equal(fake.connections, 1);
  });

  it('may look up the name of the server for 10 s, and try each address for 700 ms', async () => {
    const delays: number[] = [];
    await using fake = await openFakeKube();
    await using client = await clientOf(fake, {
      wallMs: () => systemClock.wallMs(),
      monotonicMs: () => systemClock.monotonicMs(),
      schedule(delayMs, work) {
        delays.push(delayMs);
        return systemClock.schedule(delayMs, work);
      },
    });
    await client.getJson('/api/v1/pods');
    for (const delayMs of [10_000, 700]) assert.ok(delays.includes(delayMs), `${delayMs}`);
  });

  it('names the type of a body that it sends, and wants what it reads compressed', async () => {
    const types: unknown[] = [];
    const server = createServer((request, response) => {
      types.push([request.headers['content-type'], request.headers['accept-encoding']]);
      response.end('{}');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await using fake = await openFakeKube();
    const kubeconfig = () => fake.kubeconfig().replaceAll(fake.url, `http://127.0.0.1:${port}`);
    {
      await using client = await clientOf({ ...fake, kubeconfig });
      await client.postJson('/x', {});
      await client.getJson('/x');
      await client.patchJson('/x', []);
    }
    server.close();
    assert.deepEqual(types, [
      ['application/json', undefined],
      [undefined, 'gzip'],
      ['application/json-patch+json', undefined],
    ]);
  });

  it('names the node as which it is made, and no group', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const names = new NodeImpersonation({ node: 'node-a', purpose: 'pods', log: keptLog() });
    const asNode = client.as(names);
    await asNode.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    await asNode.getJson('/api/v1/pods');
    await firstOf(asNode.watch('/api/v1/pods?watch=true', { silenceMs: 5_000 }));
    await client.getJson('/api/v1/pods');
    assert.deepEqual(
      fake.requests.map(({ asUser }) => asUser),
      ['system:node:node-a', 'system:node:node-a', 'system:node:node-a', undefined],
    );
  });

  it('is made again as the account, watches too, if the server refuses that', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    await client.postJson('/api/v1/namespaces/default/pods', rawPod('one'));
    const message =
      'users "system:node:node-a" is forbidden: User "u" cannot impersonate resource "users"';
    for (const open of [
      (calls: KubeCalls) => calls.getJson('/api/v1/namespaces/default/pods/one'),
      (calls: KubeCalls) => firstOf(calls.watch('/api/v1/pods?watch=true', { silenceMs: 5_000 })),
    ]) {
      const names = new NodeImpersonation({ node: 'node-a', purpose: 'pods', log: keptLog() });
      fake.faults.failNext(1, 403, { message });
      const before = fake.requests.length;
      assert.ok((await open(client.as(names))) !== undefined);
      assert.deepEqual(
        fake.requests.slice(before).map(({ asUser }) => asUser),
        ['system:node:node-a', undefined],
      );
    }
  });

  it('fails with a code, the status and the text of the server', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const path = '/api/v1/pods';
    const expected = [
      [400, 'SERVER'],
      [401, 'UNAUTHORIZED'],
      [403, 'FORBIDDEN'],
      [404, 'NOT_FOUND'],
      [410, 'GONE'],
      [429, 'THROTTLED'],
      [500, 'SERVER'],
      [503, 'SERVER'],
    ] as const;
    for (const [status, code] of expected) {
      fake.faults.failNext(1, status, { retryAfterSec: 7 });
      await assert.rejects(client.getJson(path), (error) => {
        assert.ok(isKubeError(code, status)(error));
        assert.equal((error as KubeError).message, 'failed on purpose');
        assert.equal((error as KubeError).retryAfterMs, 7000);
        return true;
      });
    }
  });

  it('fails with its status where the server says nothing more, or too much', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    for (const [status, message] of [
      [302, ''],
      [503, ''],
      [500, 'x'.repeat(64 * 1024)],
    ] as const) {
      fake.faults.failNext(1, status, { message });
      await assert.rejects(client.getJson('/api/v1/pods'), (error) => {
        assert.ok(isKubeError('SERVER', status)(error));
        assert.equal((error as KubeError).message, `the API server answered ${status}`);
        assert.equal((error as KubeError).retryAfterMs, undefined);
        return true;
      });
    }
  });

  it('waits for one of 16 connections', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.hang = true;
    const stop = new AbortController();
    const calls = Array.from({ length: 20 }, () =>
      client.getJson('/api/v1/pods', { signal: stop.signal }),
    );
    await eventually('16 came in', () => fake.requests.length === 16);
    stop.abort();
    await Promise.allSettled(calls);
    assert.equal(fake.requests.length, 16);
  });

  it('is made by no client without credentials', async () => {
    const inCluster = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: '1' };
    for (const environment of [{}, inCluster]) {
      const opening = openKubeClient({ environment, serviceAccountDir: '/none', userAgent: 'x' });
      await assert.rejects(opening, isKubeError('CONFIG'));
    }
    await using fake = await openFakeKube();
    await using dir = await temporaryDir();
    const kubeconfigPath = join(dir.path, 'config');
    await writeFile(kubeconfigPath, fake.kubeconfig().replaceAll(fake.url, 'no URL'));
    const opening = openKubeClient({ kubeconfigPath, userAgent: 'x' });
    await assert.rejects(opening, isKubeError('CONFIG'));
  });

  it('times out on a server that does not answer, and leaves no timer', async () => {
    await using fake = await openFakeKube();
    const clock = countingClock();
    await using client = await clientOf(fake, clock);
    fake.faults.hang = true;
    await assert.rejects(client.getJson('/api/v1/pods', { timeoutMs: 20 }), isKubeError('TIMEOUT'));
    // The connection may not be there yet, which has a timer of its own.
    await eventually('no timer is left', () => clock.armed === 0);
  });

  it("rejects with the caller's reason when the caller aborts", async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.hang = true;
    const stop = new AbortController();
    const call = client.getJson('/api/v1/pods', { signal: stop.signal });
    await eventually('the request came in', () => fake.requests.length === 1);
    stop.abort(new Error('enough'));
    await assert.rejects(call, /^Error: enough$/);
    await assert.rejects(client.getJson('/', { signal: stop.signal }), /^Error: enough$/);
  });

  it('reports a refused and a broken connection as NETWORK', async () => {
    const fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.faults.hang = true;
    const call = client.getJson('/api/v1/pods');
    await eventually('the request came in', () => fake.requests.length === 1);
    fake.cutConnections();
    await assert.rejects(call, isKubeError('NETWORK'));
    await fake[Symbol.asyncDispose]();
    await assert.rejects(client.getJson('/api/v1/pods'), isKubeError('NETWORK'));
  });
});

describe('an answer to the Kubernetes client', () => {
  it('is read up to the limit of its call', async () => {
    await using fake = await openFakeKube();
    for (const name of ['one', 'two']) fake.apply(rawPod(name));
    await using client = await clientOf(fake);
    const { length } = JSON.stringify(await client.getJson('/api/v1/pods'));
    await client.getJson('/api/v1/pods', { maxBytes: length + 1_000 });
    await assert.rejects(
      client.getJson('/api/v1/pods', { maxBytes: length - 100 }),
      isKubeError('TOO_LARGE'),
    );
    await client.getJson('/api/v1/pods');
  });
});

describe('a watch of the Kubernetes client', () => {
  it('yields events as they arrive and ends with the stream', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const opened = Promise.withResolvers<undefined>();
    const events: unknown[] = [];
    const watching = (async () => {
      const watch = client.watch('/api/v1/pods?watch=1', {
        silenceMs: 5000,
        onOpen: () => {
          opened.resolve(undefined);
        },
      });
      for await (const event of watch) events.push(asRecord(event)?.['type']);
    })();
    await opened.promise;
    fake.apply(rawPod('one'));
    fake.delete({ kind: 'Pod', name: 'one' });
    await eventually('two events', () => events.length === 2);
    fake.closeWatches();
    await watching;
    assert.deepEqual(events, ['ADDED', 'DELETED']);
  });

  it('fails with TIMEOUT when it is silent from the first byte on', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    let isOpen = false;
    const onOpen = (): void => {
      isOpen = true;
    };
    const watching = firstOf(client.watch('/api/v1/pods?watch=1', { silenceMs: 300, onOpen }));
    const outcome = await Promise.race([
      watching.catch((error: unknown) => error),
      delay(60_000, 'none', { ref: false }),
    ]);
    assert.ok(isOpen && isKubeError('TIMEOUT')(outcome), String(outcome));
  });

  it('fails with TIMEOUT when it is silent for too long', async () => {
    await using fake = await openFakeKube({ bookmarkEveryMs: 10 });
    const clock = new HandClock();
    await using client = await clientOf(fake, clock);
    let bookmarks = 0;
    const path = '/api/v1/pods?watch=1&allowWatchBookmarks=true';
    const watching = (async () => {
      for await (const event of client.watch(path, { silenceMs: 500 })) {
        assert.equal(asRecord(event)?.['type'], 'BOOKMARK');
        bookmarks += 1;
        clock.advance(10);
        // By then it has been open longer than the deadline.
        if (bookmarks === 60) fake.goSilent();
      }
    })();
    const ended = assert.rejects(watching, isKubeError('TIMEOUT'));
    await eventually('it is silent', () => bookmarks >= 60);
    clock.advance(500);
    await ended;
    assert.deepEqual(clock.armed, []);
    await eventually('the connection is closed', () => fake.connections === 0);
  });

  it('closes its connection when its loop ends', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply(rawPod('one'));
    await firstOf(client.watch('/api/v1/pods?watch=1', { silenceMs: 5000 }));
    await eventually('no connection is left', () => fake.connections === 0);
  });

  it('reports a stream that was cut within an event as NETWORK', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply(rawPod('one'));
    fake.faults.cutNextWatchAfterBytes = 20;
    await assert.rejects(
      firstOf(client.watch('/api/v1/pods?watch=1', { silenceMs: 5000 })),
      isKubeError('NETWORK'),
    );
  });
});

describe('the end of the Kubernetes client', () => {
  it('is that of its connections', async () => {
    await using fake = await openFakeKube();
    const client = await clientOf(fake);
    const opened = Promise.withResolvers<void>();
    const path = '/api/v1/pods?watch=1';
    const watching = firstOf(client.watch(path, { silenceMs: 5000, onOpen: opened.resolve }));
    const ended = assert.rejects(watching, isKubeError('NETWORK'));
    await opened.promise;
    await client[Symbol.asyncDispose]();
    await ended;
    await eventually('no connection is left', () => fake.connections === 0);
  });
});

describe('the end of a watch', () => {
  it('within an event is NETWORK even if the stream ends normally', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const watch = client.watch('/api/v1/pods?watch=1', {
      silenceMs: 5000,
      onOpen: () => {
        fake.injectIntoWatches('{"type":');
        fake.closeWatches();
      },
    });
    await assert.rejects(firstOf(watch), isKubeError('NETWORK'));
  });

  it('by an exception of the listener closes the connection', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const watch = client.watch('/api/v1/pods?watch=1', {
      silenceMs: 5000,
      onOpen: () => {
        throw new Error('listener broke');
      },
    });
    await assert.rejects(firstOf(watch), /listener broke/);
    await eventually('no connection is left', () => fake.connections === 0);
  });
});

describe('credentials that change', () => {
  it('are read again at a 401, in the same call; a repeated refusal is returned', async () => {
    await using fake = await openFakeKube();
    await using dir = await temporaryDir();
    const kubeconfigPath = join(dir.path, 'config');
    fake.faults.requiredToken = 'old';
    await writeFile(kubeconfigPath, fake.kubeconfig());
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'x' });
    await client.getJson('/api/v1/pods');

    fake.faults.requiredToken = 'new';
    await writeFile(kubeconfigPath, fake.kubeconfig());
    await client.getJson('/api/v1/pods');
    assert.deepEqual(
      fake.requests.map(({ authorization }) => authorization),
      ['Bearer old', 'Bearer old', 'Bearer new'],
    );

    fake.faults.requiredToken = 'newest';
    await assert.rejects(client.getJson('/api/v1/pods'), isKubeError('UNAUTHORIZED', 401));
    assert.equal(fake.requests.length, 4);
  });

  it('of TLS rebuild the pool when the CA file changes', async (t) => {
    await using dir = await temporaryDir();
    const at = (name: string): string => join(dir.path, name);
    const made = await selfSigned(at('tls.key'), at('ca.crt'));
    if (!made) {
      t.skip('openssl is not installed');
      return;
    }
    const cert = await readFile(at('ca.crt'), 'utf8');
    const tls = { key: await readFile(at('tls.key'), 'utf8'), cert };
    await using fake = await openFakeKube({ tls });
    fake.faults.requiredToken = 'token';
    await writeFile(at('token'), 'token\n');
    await using client = await openKubeClient({
      environment: { KUBERNETES_SERVICE_HOST: fake.host, KUBERNETES_SERVICE_PORT: `${fake.port}` },
      serviceAccountDir: dir.path,
      userAgent: 'x',
    });
    await client.getJson('/api/v1/pods');

    // Another CA must not affect existing connections, and must be used for new ones.
    assert.ok(await selfSigned(at('other.key'), at('ca.crt')));
    await assert.rejects(client.getJson('/api/v1/pods'), isKubeError('NETWORK'));
    await writeFile(at('ca.crt'), cert);
    await client.getJson('/api/v1/pods');
  });
});

/** False when openssl is not installed. */
async function selfSigned(keyFile: string, certFile: string): Promise<boolean> {
  const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2';
  const subject = ['-subj', '/CN=fake', '-addext', 'subjectAltName=IP:127.0.0.1'];
  try {
    await promisify(execFile)('openssl', [
      ...request.split(' '),
      ...subject,
      ...['-keyout', keyFile, '-out', certFile],
    ]);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
