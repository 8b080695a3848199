import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { demo } from '../../src/cli/demo.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const giveToken: Answer = (_request, response) => {
  response.end(JSON.stringify({ access_token: 'canary-token' }));
};

/** One round of the demo against a metadata service; an environment without one has no host. */
async function run(flags: Readonly<Record<string, string>>, answer: Answer = giveToken) {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(request.url ?? '');
    answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let stdout = '';
  let stderr = '';
  const code = await demo(
    { flags: { once: 'true', ...flags }, rest: [] },
    {
      environment: { AZURE_POD_IDENTITY_AUTHORITY_HOST: `http://127.0.0.1:${port}` },
      stdout: (text) => (stdout += text),
      stderr: (text) => (stderr += text),
      // Nothing is tried again.
      stop: AbortSignal.abort(),
    },
  );
  server.closeAllConnections();
  server.close();
  return { code, stdout, stderr, seen };
}

describe('nmi demo', () => {
  it('asks for instance metadata and tokens, and prints no token', async () => {
    const { code, stdout, stderr, seen } = await run({ clientid: 'c d' });
    assert.deepEqual([code, stderr], [0, '']);
    assert.deepEqual(seen, [
      '/metadata/instance?api-version=2017-08-01',
      '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F',
      '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F&client_id=c%20d',
    ]);
    const lines = stdout.trim().split('\n');
    assert.equal(lines[0], 'successfully made GET on instance metadata');
    assert.match(lines[1] ?? '', /^successfully acquired a token using the MSI, msiEndpoint\(/);
    assert.match(
      lines[2] ?? '',
      /^successfully acquired a token, userAssignedID MSI.*clientID\(c d\)$/,
    );
    assert.ok(!stdout.includes('canary'));
  });

  it('asks by no client id where none is given, for the resource that is', async () => {
    const { seen } = await run({ 'resource-name': 'https://x', 'subscription-id': 'ignored' });
    assert.equal(seen.length, 2);
    assert.ok(seen[1]?.endsWith('resource=https%3A%2F%2Fx'));
  });

  it('fails when any of it does, with what was said', async () => {
    for (const broken of ['/metadata/instance', 'client_id=c', '/metadata/identity']) {
      const { code, stderr } = await run({ 'identity-client-id': 'c' }, (request, response) => {
        if (!(request.url ?? '').includes(broken)) {
          giveToken(request, response);
          return;
        }
        response.statusCode = 400;
        response.end('{"error":"invalid_request","error_description":"Identity not found"}');
      });
      assert.equal(code, 1, broken);
      assert.match(stderr, /error: status 400 invalid_request Identity not found$/m);
    }
    const empty = await run({}, (_request, response) => response.end('{"access_token":""}'));
    assert.equal(empty.code, 1);
    assert.match(empty.stderr, /error: status 200$/m);
  });

  it('refuses wrong usage', async () => {
    const unknown = await run({ nope: '1' });
    assert.deepEqual([unknown.code, unknown.seen], [2, []]);
    assert.match(unknown.stderr, /^nmi demo: unknown flag --nope; see nmi demo --help$/m);
    const period = await run({ period: 'soon' });
    assert.equal(period.code, 2);
    assert.match(period.stderr, /--period has the value "soon"/);
  });

  it('goes on until it is stopped', async () => {
    const server = createServer(giveToken).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const stop = new AbortController();
    let lines = 0;
    const code = await demo(
      { flags: { period: '10ms' }, rest: [] },
      {
        environment: { AZURE_POD_IDENTITY_AUTHORITY_HOST: `http://127.0.0.1:${port}` },
        stdout: () => {
          lines++;
          if (lines === 4) stop.abort();
        },
        stderr: () => undefined,
        stop: stop.signal,
      },
    );
    server.closeAllConnections();
    server.close();
    assert.deepEqual([code, lines], [0, 4], 'two rounds');
  });
});
