import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { describe, it } from 'node:test';
import { getCACertificates, rootCertificates, setDefaultCACertificates } from 'node:tls';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { StartError } from '../../../../src/base/start-error.ts';
import {
  EntraNetworkError,
  openEntraNetwork,
  type EntraNetwork,
  type EntraNetworkOptions,
} from '../../../../src/nmi/sources/entra/network.ts';
import {
  createCertificate,
  json,
  openTokenServer,
  raw,
  type Answer,
  type TokenServer,
} from './token-server.ts';
import { openTunnelProxy } from './tunnel-proxy.ts';

function open(server: TokenServer, options: Partial<EntraNetworkOptions> = {}): EntraNetwork {
  return openEntraNetwork({
    timeoutMs: 3_000,
    userAgent: 'nmi/test',
    caPem: server.caPem,
    environment: {},
    clock: systemClock,
    ...options,
  });
}

function post(network: EntraNetwork, authority: string, signal = AbortSignal.timeout(5_000)) {
  return network.postForm(`${authority}/t/token?id=1`, 'a=b', { 'x-own': '1' }, signal);
}

async function messageOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => assert.fail('it was answered'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof EntraNetworkError, String(error));
  return error.message;
}

describe('the network to Entra ID', () => {
  it('posts a form and accepts any answer unchanged', async () => {
    await using server = await openTokenServer();
    await using network = open(server);
    server.answerWith(json(200, { a: 1 }), raw(502, '<html>'), raw(302, '', { Location: '/x' }));
    assert.deepEqual(await post(network, server.authority), {
      server: 'Entra ID',
      status: 200,
      body: '{"a":1}',
      clockAheadMs: 0,
      retryAfterS: undefined,
    });
    assert.deepEqual(await post(network, server.authority), {
      server: 'Entra ID',
      status: 502,
      body: '<html>',
      clockAheadMs: 0,
      retryAfterS: undefined,
    });
    assert.equal((await post(network, server.authority)).status, 302);
    assert.equal(server.received.length, 3);
    const [{ method, target, headers, form }] = server.received as [TokenServer['received'][0]];
    assert.deepEqual([method, target, form.get('a')], ['POST', '/t/token?id=1', 'b']);
    assert.equal(headers['user-agent'], 'nmi/test');
    assert.equal(headers['x-own'], '1');
  });

  it('reports how far the clock is from that of the server', async () => {
    await using server = await openTokenServer();
    const wallMs = Date.UTC(2026, 0, 1);
    await using network = open(server, { clock: { ...systemClock, wallMs: () => wallMs } });
    for (const aheadMs of [3_600_000, -3_600_000, 0]) {
      server.answerWith(raw(200, '', { Date: new Date(wallMs - aheadMs).toUTCString() }));
      assert.equal((await post(network, server.authority)).clockAheadMs, aheadMs);
    }
  });

  it('keeps its connections', async () => {
    await using server = await openTokenServer();
    await using network = open(server);
    server.answerWith(json(200, {}));
    for (let call = 0; call < 20; call++) await post(network, server.authority);
    assert.ok(server.connections <= 2, `${server.connections} connections`);
    assert.equal(server.received.length, 20);
  });

  it('has at most 16 connections to an authority, however many tokens are fetched', async () => {
    await using server = await openTokenServer();
    await using network = open(server);
    const held: ServerResponse[] = [];
    server.answerWith((response) => held.push(response));
    const posts = Array.from({ length: 20 }, () => post(network, server.authority));
    await eventually(() => assert.ok(held.length >= 16));
    server.answerWith(json(200, {}));
    for (const response of held) response.end('{}');
    await Promise.all(posts);
    assert.equal(held.length, 16);
    assert.equal(server.connections, 16);
  });

  it('reads Retry-After as seconds and as a date, up to an hour', async () => {
    await using server = await openTokenServer();
    const wallMs = Date.UTC(2026, 0, 1);
    await using network = open(server, { clock: { ...systemClock, wallMs: () => wallMs } });
    const after = (value: string): Answer => raw(429, '', { 'Retry-After': value });
    const waits: readonly (readonly [string, number | undefined])[] = [
      ['7', 7],
      ['0', 0],
      [new Date(wallMs + 90_000).toUTCString(), 90],
      [new Date(wallMs - 90_000).toUTCString(), 0],
      ['3601', 3600],
      [new Date(wallMs + 86_400_000).toUTCString(), 3600],
      ['soon', undefined],
    ];
    for (const [value, retryAfterS] of waits) {
      server.answerWith(after(value));
      assert.equal((await post(network, server.authority)).retryAfterS, retryAfterS, value);
    }
  });

  it('does not read an endless body', async () => {
    await using server = await openTokenServer();
    await using network = open(server);
    server.answerWith((response) => {
      response.writeHead(200);
      const write = (): void => {
        while (!response.destroyed && response.write('x'.repeat(16_384)));
      };
      response.on('drain', write);
      write();
    });
    assert.match(await messageOf(post(network, server.authority)), /has more than 65536 bytes$/);
  });

  it('distinguishes a reset, a refused connection and one that is cut in the middle', async () => {
    await using server = await openTokenServer();
    await using network = open(server);
    server.answerWith((response) => response.destroy());
    assert.match(await messageOf(post(network, server.authority)), /^Entra ID did not answer/);
    server.answerWith((response) => {
      response.writeHead(200, { 'Content-Length': '100' }).write('{');
      response.socket?.end();
    });
    assert.match(await messageOf(post(network, server.authority)), /^Entra ID did not answer/);
    const resetting = createServer((socket) => socket.resetAndDestroy()).listen(0, '127.0.0.1');
    await once(resetting, 'listening');
    const { port } = resetting.address() as AddressInfo;
    assert.match(
      await messageOf(post(network, `https://127.0.0.1:${port}`)),
      /^Entra ID did not answer/,
    );
    resetting.close();
    await once(resetting, 'close');
    assert.match(
      await messageOf(post(network, `https://127.0.0.1:${port}`)),
      /^Entra ID did not answer/,
    );
  });

  it('ends with the caller’s signal, and by its own time limit', async () => {
    await using server = await openTokenServer();
    await using network = open(server, { timeoutMs: 300 });
    const abort = new AbortController();
    const reason = new Error('enough');
    server.answerWith(() => {
      abort.abort(reason);
    });
    const ended = post(network, server.authority, abort.signal);
    await assert.rejects(ended, (error) => error === reason);
    server.answerWith(() => undefined);
    assert.match(await messageOf(post(network, server.authority)), /^Entra ID did not answer/);
  });

  it('gives up on a server that is silent before TLS', async () => {
    await using server = await openTokenServer();
    await using network = open(server, { timeoutMs: 300 });
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as AddressInfo;
    assert.match(
      await messageOf(post(network, `https://127.0.0.1:${port}`)),
      /^Entra ID did not answer/,
    );
    silent.close();
  });

  it('rejects pending requests when it is closed', async () => {
    await using server = await openTokenServer();
    const network = open(server);
    const { promise: arrived, resolve } = Promise.withResolvers<undefined>();
    server.answerWith(() => {
      resolve(undefined);
    });
    const outstanding = messageOf(post(network, server.authority));
    await arrived;
    await network[Symbol.asyncDispose]();
    assert.match(await outstanding, /^Entra ID did not answer/);
  });
});

describe('trust in servers on the way to Entra ID', () => {
  it('includes the CAs of the file, in addition to those of the system', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    const [other = ''] = rootCertificates;
    await using trusting = open(server, { caPem: `${other}\n${server.caPem}` });
    assert.equal((await post(trusting, server.authority)).status, 200);
    await using untrusted = open(server, { caPem: undefined });
    assert.match(await messageOf(post(untrusted, server.authority)), /is not trusted/);
    assert.equal(server.received.length, 1);
  });

  it('still includes those of the system when there is a file', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    const system = getCACertificates('default');
    setDefaultCACertificates([server.caPem]);
    try {
      await using network = open(server, { caPem: createCertificate().certificatePem });
      assert.equal((await post(network, server.authority)).status, 200);
    } finally {
      setDefaultCACertificates(system);
    }
  });

  it('requires the right name, too', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    await using network = open(server);
    const other = `https://127.0.0.2:${server.port}`;
    await using proxy = await openTunnelProxy(server.port);
    await using proxied = open(server, { environment: { HTTPS_PROXY: proxy.url } });
    assert.match(await messageOf(post(proxied, other)), /is not trusted/);
    assert.match(await messageOf(post(proxied, 'https://login.other.test')), /is not trusted/);
    assert.equal((await post(network, server.authority)).status, 200);
    assert.equal(server.received.length, 1);
  });
});

describe('a proxy on the way to Entra ID', () => {
  it('is used, with its password, and kept open', async () => {
    await using server = await openTokenServer();
    await using proxy = await openTunnelProxy(server.port);
    const url = proxy.url.replace('//', '//user:p%40ss@');
    await using network = open(server, { environment: { HTTPS_PROXY: url } });
    server.answerWith(json(200, {}));
    for (let call = 0; call < 5; call++) {
      assert.equal((await post(network, 'https://login.entra.test')).status, 200);
    }
    assert.deepEqual(proxy.tunnels[0], {
      target: 'login.entra.test:443',
      authorization: `Basic ${Buffer.from('user:p@ss').toString('base64')}`,
    });
    assert.ok(proxy.tunnels.length <= 2);
    assert.equal(server.received[0]?.headers['proxy-authorization'], undefined);
    assert.equal(server.received[0]?.headers.host, 'login.entra.test');
  });

  it('is bypassed for the hosts of NO_PROXY', async () => {
    await using server = await openTokenServer();
    await using proxy = await openTunnelProxy(server.port);
    server.answerWith(json(200, {}));
    for (const NO_PROXY of ['localhost', 'a, localhost', `localhost:${server.port}`, '*']) {
      const environment = { HTTPS_PROXY: proxy.url, NO_PROXY };
      await using network = open(server, { environment });
      assert.equal((await post(network, server.authority)).status, 200);
      assert.equal(proxy.tunnels.length, 0, NO_PROXY);
    }
    const environment = { HTTPS_PROXY: proxy.url, NO_PROXY: 'host,10.0.0.0/8,localhost:1' };
    await using network = open(server, { environment });
    assert.equal((await post(network, server.authority)).status, 200);
    assert.equal(proxy.tunnels.length, 1);
  });

  it('is read only from the given environment', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    const own = { ...process.env };
    process.env['HTTPS_PROXY'] = process.env['HTTP_PROXY'] = 'no URL at all';
    process.env['NO_PROXY'] = '*';
    try {
      await using direct = open(server);
      assert.equal((await post(direct, server.authority)).status, 200);
      await using proxy = await openTunnelProxy(server.port);
      await using network = open(server, { environment: { HTTPS_PROXY: proxy.url } });
      assert.equal((await post(network, server.authority)).status, 200);
      assert.equal(proxy.tunnels.length, 1);
    } finally {
      process.env = own;
    }
  });

  it('that refuses, hangs or is unreachable is reported as such, without its password', async () => {
    await using server = await openTokenServer();
    const told = async (url: string): Promise<string> => {
      const HTTPS_PROXY = url.replace('//', '//user:hunter2@');
      await using network = open(server, { timeoutMs: 300, environment: { HTTPS_PROXY } });
      const error = await post(network, 'https://login.entra.test').catch(
        (thrown: unknown) => thrown,
      );
      assert.ok(error instanceof EntraNetworkError);
      assert.doesNotMatch(error.message, /hunter2|127\.0\.0\.1/);
      return error.message;
    };
    for (const status of [403, 407, 502]) {
      await using refusing = await openTunnelProxy(server.port, status);
      assert.match(await told(refusing.url), /^the proxy refused the tunnel/);
    }
    await using hanging = await openTunnelProxy(server.port, 'hang');
    assert.match(await told(hanging.url), /^Entra ID did not answer/);
    assert.match(await told('http://127.0.0.1:1'), /^Entra ID did not answer/);
  });

  it('with an invalid URL is not opened', async () => {
    await using server = await openTokenServer();
    assert.throws(
      () => open(server, { environment: { HTTPS_PROXY: 'socks5://hunter2@p' } }),
      (error) => error instanceof StartError && !error.message.includes('hunter2'),
    );
  });
});
