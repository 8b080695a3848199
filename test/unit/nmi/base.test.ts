import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  answerToken,
  metadataHeaderMissing,
  type RefusalReason,
  refusals,
  refuse,
} from '../../../src/nmi/base/answers.ts';
import { buildInfo, userAgent } from '../../../src/nmi/base/build-info.ts';
import { correlationInBytes, correlationOf } from '../../../src/nmi/base/correlation.ts';
import { portError } from '../../../src/nmi/base/port-error.ts';
import { readiness } from '../../../src/nmi/base/readiness.ts';
import { scaleSetOf } from '../../../src/nmi/base/scale-set.ts';
import { takeParser } from '../../../src/nmi/base/timeout-checks.ts';
import { readRequest } from '../../../src/nmi/server/fast-path/known-request.ts';

const reasons = Object.keys(refusals) as RefusalReason[];

describe('the table of refusals', () => {
  it('has the exact 88 bytes of the metadata header refusal', () => {
    const answer = metadataHeaderMissing;
    assert.equal(answer.status, 400);
    assert.equal(Buffer.byteLength(answer.body), 88);
    assert.equal(
      answer.body,
      '{"error":"invalid_request","error_description":"Required metadata header not specified"}',
    );
  });

  for (const reason of reasons) {
    it(`gives ${reason} a status that clients handle correctly`, () => {
      if (reason === 'metadata_header_missing') return;
      const answer = refuse(reason, 'why');
      assert.ok(answer.status >= 400 && answer.status < 600 && answer.status !== 410);
      const isPassing = answer.status === 503 || answer.status === 429;
      assert.equal(answer.retryAfterS !== undefined, isPassing, 'Retry-After exactly on 429, 503');
      assert.ok((answer.retryAfterS ?? 1) >= 1, 'no client retries at once');
      const body = JSON.parse(answer.body) as Record<string, unknown>;
      assert.ok(typeof body['error'] === 'string' && body['error'] !== '');
      assert.equal(body['error_description'], `why (${reason})`);
    });
  }

  it('has the methods that are allowed, and ends the connection, where that is needed', () => {
    const plain = refuse('method_not_allowed', 'x');
    assert.deepEqual([plain.allow, plain.close], [undefined, undefined]);
    const full = refuse('method_not_allowed', 'x', { allow: 'GET', close: true });
    assert.deepEqual([full.allow, full.close], ['GET', true]);
  });

  it('has the wait of the upstream, but never less than the table', () => {
    assert.equal(refuse('upstream_throttled', 'x', { retryAfterS: 7 }).retryAfterS, 7);
    assert.equal(refuse('upstream_throttled', 'x', { retryAfterS: 1 }).retryAfterS, 5);
    assert.equal(refuse('no_binding_label', 'x', { retryAfterS: 7 }).retryAfterS, undefined);
  });

  it('has no unused reason', async () => {
    const root = new URL('../../../src/', import.meta.url);
    const names = await readdir(root, { recursive: true });
    const texts = await Promise.all(
      names
        .filter((name) => name.endsWith('.ts') && name !== 'nmi/base/answers.ts')
        .map((name) => readFile(new URL(name, root), 'utf8')),
    );
    const source = texts.join('\n');
    const unused = reasons.filter((reason) => !source.includes(`'${reason}'`));
    assert.deepEqual(unused, []);
  });

  it('never contains the word unreachable in a 403, whatever its source', () => {
    for (const reason of reasons) {
      if (reason === 'metadata_header_missing') continue;
      const { status, body } = refuse(reason, 'pod default/Unreachable-app is unreachable');
      assert.equal(/unreachable/i.test(body), status !== 403, reason);
      assert.match(body, /pod default\//);
    }
  });
});

describe('an answer with a token', () => {
  it('succeeds, with the body as it is', () => {
    assert.deepEqual(answerToken('{}'), { reason: 'ok', status: 200, body: '{}' });
  });
});

describe('the running version', () => {
  it('is marked as not built', () => {
    assert.deepEqual(buildInfo, { version: '0.0.0-source', commit: 'unknown', date: 'unknown' });
  });

  it('has the name of the replaced system, with an additional text', () => {
    assert.equal(userAgent(''), 'aad-pod-identity/NMI/0.0.0-source/unknown/unknown');
    assert.equal(userAgent('team'), 'aad-pod-identity/NMI/0.0.0-source/unknown/unknown team');
  });
});

const guid = '0A1B2C3D-0000-4000-8000-000000000001';
const trace = '4bf92f3577b34da6a3ce929d0e0e4736';
const none = { clientRequestId: undefined, traceId: undefined };

function read(headers: Readonly<Record<string, string>>) {
  return correlationOf({
    headerValues: (name) => (headers[name] === undefined ? [] : [headers[name]]),
  });
}

describe('the ids of a client', () => {
  it('are its request id and its trace id', () => {
    assert.deepEqual(
      read({
        'x-ms-client-request-id': ` ${guid}`,
        traceparent: `00-${trace}-00f067aa0ba902b7-01`,
      }),
      { clientRequestId: guid.toLowerCase(), traceId: trace },
    );
    assert.deepEqual(read({}), none);
  });

  it('have the standard format or are missing: anything else may be a secret', () => {
    for (const text of ['', 'id', 'eyJhbGciOiJub25lIn0.e30.', `${guid} x`, `${guid}\n`, trace]) {
      const odd = text.trim() === guid ? `${guid}0` : text;
      assert.deepEqual(read({ 'x-ms-client-request-id': odd, traceparent: odd }), none, text);
    }
    assert.equal(read({ traceparent: `00-${trace}-00f067aa0ba902b7` }).traceId, undefined);
  });

  it('are found in the bytes of a request on the fast path, recognized or not', () => {
    const text = (id: string, resource: string) =>
      Buffer.from(
        `GET /metadata/identity/oauth2/token?resource=${resource} HTTP/1.1\r\nMetadata: true\r\n` +
          `X-Ms-Client-Request-Id: ${id}\r\nTraceparent: 00-${trace}-00f067aa0ba902b7-01\r\n\r\n`,
      );
    const first = readRequest(text('no guid', 'r'));
    assert.ok(first !== undefined);
    assert.deepEqual(correlationInBytes(first), { clientRequestId: undefined, traceId: trace });
    const other = readRequest(text(guid, 'other'), readRequest(text(guid.replace('A', 'B'), 'r')));
    assert.ok(other !== undefined);
    assert.deepEqual(correlationInBytes(other), {
      clientRequestId: guid.toLowerCase(),
      traceId: trace,
    });
  });
});

describe('a port that cannot be bound', () => {
  const textOf = (code: string): string =>
    portError(Object.assign(new Error(`listen ${code}`), { code }), '10.0.0.4:80', '--x').message;

  it('is the reason why the agent cannot start, with the option that changes it', () => {
    assert.equal(
      textOf('EADDRINUSE'),
      '10.0.0.4:80 is in use by another process: listen EADDRINUSE; --x chooses another',
    );
    assert.match(textOf('EACCES'), /^no permission to bind 10\.0\.0\.4:80: listen EACCES; --x /);
    assert.match(textOf('EADDRNOTAVAIL'), /does not have the address 10\.0\.0\.4:80: .*; --x /);
    assert.match(textOf('EIO'), /^10\.0\.0\.4:80 could not be bound: listen EIO; --x /);
    assert.equal(portError('x', 'here', '--x').code, 'UNAVAILABLE');
  });
});

describe('readiness', () => {
  it('is everything that is missing in any part', () => {
    const condition = (name: string, problem?: string) => ({ name, problem: () => problem });
    assert.deepEqual(readiness([{}, { conditions: [condition('a')] }]), {
      ready: true,
      missing: {},
    });
    const parts = [
      { conditions: [condition('a'), condition('b', 'waits')] },
      { conditions: [condition('c', 'broken')] },
    ];
    assert.deepEqual(readiness(parts), { ready: false, missing: { b: 'waits', c: 'broken' } });
  });
});

it('finds the scale set of a node by its name, or takes the node for one', () => {
  for (const [node, scaleSet] of [
    ['aks-pool1-12345678-vmss000000', 'aks-pool1-12345678-vmss'],
    ['aks-pool1-12345678-vmss00001a', 'aks-pool1-12345678-vmss'],
    ['aks-pool1-12345678-0', 'aks-pool1-12345678-0'],
    ['aks-system-surge-x7k2p', 'aks-system-surge-x7k2p'],
    ['', ''],
  ] as const) {
    assert.equal(scaleSetOf(node), scaleSet);
  }
});

const checkMs = 20;
const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

/** A server that answers `x`; a head must be complete within 100 ms. */
async function open(context: TestContext) {
  const server: Server & { connectionsCheckingInterval?: number } = createServer(
    { headersTimeout: 100, requestTimeout: 100 },
    (_, response) => response.end('x'),
  );
  server.on('connection', takeParser(server, checkMs));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => server.close());
  return {
    dial: (first: string): Socket => {
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
      socket.on('error', () => undefined).write(first);
      return socket;
    },
    areChecked: () => server.connectionsCheckingInterval === checkMs,
    untilClosed: async () => {
      for (;;) {
        const { promise, resolve } = Promise.withResolvers<number>();
        server.getConnections((_, count) => {
          resolve(count);
        });
        const count = await promise;
        await nextTurn();
        if (count === 0) return;
      }
    },
  };
}

describe('the parser of a server', () => {
  it('gets no connection that the caller does not pass on', () => {
    const server = createServer();
    takeParser(server, checkMs);
    assert.deepEqual(server.listeners('connection'), []);
  });
});

describe('the timeouts of requests', () => {
  it('are checked from the first connection on, until the last one has closed', async (context) => {
    const { dial, areChecked, untilClosed } = await open(context);
    assert.equal(areChecked(), false);
    const [one, other] = [dial(request), dial(request)];
    await Promise.all([once(one, 'data'), once(other, 'data')]);
    assert.equal(areChecked(), true);
    one.destroy();
    await once(one, 'close');
    assert.equal(areChecked(), true);
    other.destroy();
    await untilClosed();
    assert.equal(areChecked(), false);
  });

  it('end a slow head, before others were served and after', async (context) => {
    const { dial, untilClosed } = await open(context);
    for (let round = 0; round < 2; round += 1) {
      const slow = dial('GET / HTTP/1.1\r\n');
      const [chunk] = (await once(slow, 'data')) as [Buffer];
      assert.match(chunk.toString(), /^HTTP\/1\.1 408 /);
      await untilClosed();
      const quick = dial(request);
      await once(quick, 'data');
      quick.destroy();
      await untilClosed();
    }
  });
});
