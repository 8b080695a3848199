import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { getCACertificates, rootCertificates, setDefaultCACertificates } from 'node:tls';
import { createLabAuthority } from '../../../../../lab/fakes/authority.ts';
import { eventually } from '../../../../../lab/test-bed/eventually.ts';
import { StartError } from '../../../../../src/base/start-error.ts';
import { systemClock } from '../../../../../src/base/time/clock.ts';
import {
  EntraNetworkError,
  openEntraNetwork,
  type EntraNetwork,
  type EntraNetworkOptions,
} from '../../../../../src/nmi/sources/entra/network.ts';
import { authority, json, openTokenServer, openTunnelProxy, raw } from './token-server.ts';

function open(options: Partial<EntraNetworkOptions> = {}): EntraNetwork {
  const usual = { timeoutMs: 3_000, userAgent: 'nmi/test', environment: {}, clock: systemClock };
  return openEntraNetwork({ ...usual, caPem: authority.certificatePem, ...options });
}

function post(network: EntraNetwork, to: string, signal = AbortSignal.timeout(5_000)) {
  return network.postForm(`${to}/t/token?id=1`, 'a=b', { 'x-own': '1' }, signal);
}

async function fails(work: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof EntraNetworkError, String(error));
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /hunter2|127\.0\.0\.1/);
    return true;
  });
}

const silence = /^Entra ID \([\w.]+:\d+\) did not answer/;
const distrust = /is not trusted/;

describe('the network to Entra ID', () => {
  it('posts a form and accepts any answer unchanged', async () => {
    await using server = await openTokenServer();
    await using network = open();
    server.answerWith(json(200, { a: 1 }), raw(502, '<html>'), raw(302, '', { Location: '/x' }));
    const plain = { server: 'Entra ID', clockAheadMs: 0, retryAfterS: undefined };
    for (const answer of [
      { status: 200, body: '{"a":1}' },
      { status: 502, body: '<html>' },
      { status: 302, body: '' },
    ]) {
      assert.deepEqual(await post(network, server.authority), { ...plain, ...answer });
    }
    assert.equal(server.received.length, 3);
    const { method, target, headers, form } = server.received[0]!;
    assert.deepEqual([method, target, form.get('a')], ['POST', '/t/token?id=1', 'b']);
    assert.deepEqual([headers['user-agent'], headers['x-own']], ['nmi/test', '1']);
  });

  it('reads the clock of the server, and its Retry-After up to an hour', async () => {
    await using server = await openTokenServer();
    const wallMs = Date.UTC(2026, 0, 1);
    await using network = open({ clock: { ...systemClock, wallMs: () => wallMs } });
    const dateIn = (ms: number) => new Date(wallMs + ms).toUTCString();
    for (const [wait, retryAfterS] of [
      ['7', 7],
      [dateIn(90_000), 90],
      ['3601', 3600],
    ] as const) {
      server.answerWith(raw(429, '', { Date: dateIn(-3_600_000), 'Retry-After': wait }));
      const answer = await post(network, server.authority);
      assert.deepEqual([answer.clockAheadMs, answer.retryAfterS], [3_600_000, retryAfterS]);
    }
  });

  it('keeps its connections, at most 16 to an authority', async () => {
    await using server = await openTokenServer();
    await using network = open();
    server.answerWith(json(200, {}));
    for (let call = 0; call < 20; call++) await post(network, server.authority);
    assert.ok(server.connections <= 2, `${server.connections} connections`);
    assert.equal(server.received.length, 20);
    const held: ServerResponse[] = [];
    server.answerWith((response) => held.push(response));
    const posts = Array.from({ length: 20 }, () => post(network, server.authority));
    await eventually(() => assert.ok(held.length >= 16));
    const { connections } = server;
    server.answerWith(json(200, {}));
    for (const response of held) response.end('{}');
    await Promise.all(posts);
    assert.equal(held.length, 16);
    assert.ok(connections <= 17 && server.connections === connections, `${server.connections}`);
  });

  it('does not read an endless body', async () => {
    await using server = await openTokenServer();
    await using network = open();
    server.answerWith((response) => {
      response.writeHead(200);
      const write = (): void => {
        while (!response.destroyed && response.write('x'.repeat(16_384)));
      };
      response.on('drain', write);
      write();
    });
    await fails(post(network, server.authority), /has more than 65536 bytes$/);
  });

  it('reports a connection that is cut, reset, refused or silent', async () => {
    await using server = await openTokenServer();
    await using network = open({ timeoutMs: 300 });
    for (const [answer, cause] of [
      [(response: ServerResponse) => response.destroy(), /: the connection was cut \(/],
      [
        (response: ServerResponse) => {
          response.writeHead(200, { 'Content-Length': '100' }).write('{');
          response.socket?.end();
        },
        silence,
      ],
      [() => undefined, /: no answer, as behind a firewall \(/],
    ] as const) {
      server.answerWith(answer);
      await fails(post(network, server.authority), cause);
    }
    const sockets: Socket[] = [];
    for (const behave of [
      (socket: Socket) => socket.resetAndDestroy(),
      // Before TLS.
      (socket: Socket) => sockets.push(socket),
    ]) {
      const plain = createServer(behave).listen(0, '127.0.0.1');
      await once(plain, 'listening');
      const url = `https://localhost:${(plain.address() as AddressInfo).port}`;
      await fails(post(network, url), silence);
      for (const socket of sockets) socket.destroy();
      await once(plain.close(), 'close');
      await fails(post(network, url), /: the connection was refused \(ECONNREFUSED\)$/);
    }
  });

  it('ends with the caller’s signal, and rejects pending requests when it is closed', async () => {
    await using server = await openTokenServer();
    const network = open();
    const abort = new AbortController();
    const reason = new Error('enough');
    server.answerWith(() => {
      abort.abort(reason);
    });
    const ended = post(network, server.authority, abort.signal);
    await assert.rejects(ended, (error) => error === reason);
    const { promise: arrived, resolve } = Promise.withResolvers<undefined>();
    server.answerWith(() => {
      resolve(undefined);
    });
    const outstanding = fails(post(network, server.authority), silence);
    await arrived;
    await network[Symbol.asyncDispose]();
    await outstanding;
  });
});

describe('trust in servers on the way to Entra ID', () => {
  it('includes the CAs of the file, in addition to those of the system', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    const [other = ''] = rootCertificates;
    await using trusting = open({ caPem: `${other}\n${authority.certificatePem}` });
    assert.equal((await post(trusting, server.authority)).status, 200);
    await using untrusted = open({ caPem: undefined });
    await fails(post(untrusted, server.authority), distrust);
    assert.equal(server.received.length, 1);
    const system = getCACertificates('default');
    setDefaultCACertificates([authority.certificatePem]);
    try {
      await using network = open({ caPem: (await createLabAuthority()).certificatePem });
      assert.equal((await post(network, server.authority)).status, 200);
    } finally {
      setDefaultCACertificates(system);
    }
  });

  it('requires the right name, too', async () => {
    await using server = await openTokenServer();
    server.answerWith(json(200, {}));
    await using network = open();
    await using proxy = await openTunnelProxy(server.port);
    await using proxied = open({ environment: { HTTPS_PROXY: proxy.url } });
    for (const other of [`https://127.0.0.2:${server.port}`, 'https://login.other.test']) {
      await fails(post(proxied, other), distrust);
    }
    assert.equal((await post(network, server.authority)).status, 200);
    assert.equal(server.received.length, 1);
  });
});

describe('a proxy on the way to Entra ID', () => {
  it('is used, with its password, and kept open', async () => {
    await using server = await openTokenServer();
    await using proxy = await openTunnelProxy(server.port);
    const HTTPS_PROXY = proxy.url.replace('//', '//user:p%40ss@');
    await using network = open({ environment: { HTTPS_PROXY } });
    server.answerWith(json(200, {}));
    for (let call = 0; call < 5; call++) {
      assert.equal((await post(network, 'https://login.entra.test')).status, 200);
    }
    assert.deepEqual(proxy.tunnels[0], {
      target: 'login.entra.test:443',
      authorization: `Basic ${Buffer.from('user:p@ss').toString('base64')}`,
    });
    assert.ok(proxy.tunnels.length <= 2);
    const { headers } = server.received[0]!;
    assert.deepEqual(
      [headers['proxy-authorization'], headers.host],
      [undefined, 'login.entra.test'],
    );
  });

  it('is bypassed for the hosts of NO_PROXY, and read only from the given environment', async () => {
    await using server = await openTokenServer();
    await using proxy = await openTunnelProxy(server.port);
    server.answerWith(json(200, {}));
    const own = { ...process.env };
    process.env['HTTPS_PROXY'] = process.env['HTTP_PROXY'] = 'no URL at all';
    process.env['NO_PROXY'] = '*';
    const HTTPS_PROXY = proxy.url;
    try {
      for (const [environment, tunnels] of [
        [{}, 0],
        [{ HTTPS_PROXY, NO_PROXY: 'localhost' }, 0],
        [{ HTTPS_PROXY, NO_PROXY: 'a, localhost' }, 0],
        [{ HTTPS_PROXY, NO_PROXY: `localhost:${server.port}` }, 0],
        [{ HTTPS_PROXY, NO_PROXY: '*' }, 0],
        [{ HTTPS_PROXY, NO_PROXY: 'host,10.0.0.0/8,localhost:1' }, 1],
        [{ HTTPS_PROXY }, 2],
      ] as const) {
        await using network = open({ environment });
        assert.equal((await post(network, server.authority)).status, 200);
        assert.equal(proxy.tunnels.length, tunnels, JSON.stringify(environment));
      }
    } finally {
      process.env = own;
    }
  });

  it('that refuses, hangs, is unreachable or no URL is reported without its password', async () => {
    await using server = await openTokenServer();
    const failsBy = async (url: string, message: RegExp) => {
      const HTTPS_PROXY = url.replace('//', '//user:hunter2@');
      await using network = open({ timeoutMs: 300, environment: { HTTPS_PROXY } });
      await fails(post(network, 'https://login.entra.test'), message);
    };
    for (const status of [403, 407, 502]) {
      await using refusing = await openTunnelProxy(server.port, status);
      await failsBy(
        refusing.url,
        new RegExp(`^the proxy refused the tunnel to Entra ID .* with HTTP ${status} `),
      );
    }
    await using hanging = await openTunnelProxy(server.port, 'hang');
    await failsBy(hanging.url, silence);
    await failsBy('http://127.0.0.1:1', /did not answer through the proxy of https_proxy: /);
    assert.throws(
      () => open({ environment: { HTTPS_PROXY: 'socks5://hunter2@p' } }),
      (error) => error instanceof StartError && !error.message.includes('hunter2'),
    );
  });
});
