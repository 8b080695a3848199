import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { demo, isPassing, pauseMs } from '../../../src/cli/demo.ts';
import { beside, record } from './recorded-io.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const giveToken: Answer = (_request, response) => {
  response.end(JSON.stringify({ access_token: 'canary-token' }));
};

/** One round of the demo against a metadata service; an environment without one has no host. */
async function run(
  flags: Readonly<Record<string, string>>,
  answer: Answer = giveToken,
  // No retries.
  stop = AbortSignal.abort(),
) {
  const seen: string[] = [];
  const played = await beside(
    (request, response) => {
      seen.push(request.url ?? '');
      answer(request, response);
    },
    (port) =>
      record((io) => demo({ flags: { once: 'true', ...flags }, rest: [] }, io), at(port), stop),
  );
  return { ...played, seen };
}

const at = (port: number) => ({ AZURE_POD_IDENTITY_AUTHORITY_HOST: `http://127.0.0.1:${port}` });

describe('nmi demo', () => {
  it('requests instance metadata and tokens, and prints no token', async () => {
    const { code, stdout, stderr, seen } = await run({ 'identity-client-id': 'c d' });
    assert.deepEqual([code, stderr], [0, '']);
    assert.deepEqual(seen, [
      '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F',
      '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F&client_id=c%20d',
      '/metadata/instance?api-version=2017-08-01',
    ]);
    const lines = stdout.trim().split('\n');
    assert.match(lines[0] ?? '', /^successfully acquired a token using the MSI, msiEndpoint\(/);
    assert.match(
      lines[1] ?? '',
      /^successfully acquired a token, userAssignedID MSI.*clientID\(c d\)$/,
    );
    assert.equal(lines[2], 'successfully made GET on instance metadata');
    assert.ok(!stdout.includes('canary'));
  });

  it('sends no client id if none is given, and the given resource', async () => {
    const { seen } = await run({ 'resource-name': 'https://x' });
    assert.equal(seen.length, 2);
    assert.ok(seen[0]?.endsWith('resource=https%3A%2F%2Fx'));
  });

  it('prints what the quick start shows, also with the flags of the replaced system', async () => {
    const { code, stdout, seen } = await run({
      'subscription-id': 'a',
      'resource-group': 'g',
      'identity-client-id': 'c',
    });
    assert.deepEqual([code, seen.length], [0, 3]);
    const page = await readFile(join(import.meta.dirname, '../../../docs/quickstart.md'), 'utf8');
    const shown = /<!-- output: demo -->\s+```text\n([^`]+)```/.exec(page)?.[1] ?? '';
    const plain = (text: string) =>
      text
        .replaceAll(/http:\/\/[\d.:]+/g, 'HOST')
        .replaceAll(/clientID\([^)]*\)/g, 'X')
        .trimEnd();
    assert.equal(plain(shown), plain(stdout));
  });

  it('fails if any request does, with the answer', async () => {
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
    const refused = await run({}, (request, response) => {
      if ((request.url ?? '').includes('/metadata/identity')) response.statusCode = 400;
      giveToken(request, response);
    });
    assert.equal(refused.code, 1);
  });

  it('gives up after 5 tries', async () => {
    const overloaded: Answer = (_request, response) =>
      response.writeHead(503, { 'Retry-After': '0' }).end();
    const { code, seen } = await run({}, overloaded, new AbortController().signal);
    assert.equal(code, 1);
    assert.equal(seen.filter((target) => target.includes('/oauth2/token')).length, 5);
  });

  it('waits before another try as long as the server says', async () => {
    let tries = 0;
    const startedAtMs = performance.now();
    const { code } = await run(
      {},
      (request, response) => {
        tries += 1;
        if (tries === 1) response.writeHead(503, { 'Retry-After': '1' }).end();
        else giveToken(request, response);
      },
      new AbortController().signal,
    );
    assert.equal(code, 0);
    assert.ok(performance.now() - startedAtMs >= 990);
  });

  it('retries what may pass, and no refusal', () => {
    const answered = (status: number) =>
      isPassing({ kind: 'answered', status, body: {}, retryAfterS: undefined });
    const statuses = [200, 400, 403, 404, 408, 410, 429, 499, 500, 503];
    assert.deepEqual(statuses.filter(answered), [404, 408, 410, 429, 500, 503]);
    assert.ok(isPassing({ kind: 'failed', code: 'ECONNREFUSED' }));
  });

  it('waits longer before each retry, or as long as the server says, up to 10 s', () => {
    const failed = { kind: 'failed', code: 'ECONNREFUSED' } as const;
    assert.deepEqual(
      [1, 2, 3, 4, 5].map((tries) => pauseMs(failed, tries)),
      [1_000, 2_000, 4_000, 8_000, 10_000],
    );
    const answered = (retryAfterS?: number) =>
      pauseMs({ kind: 'answered', status: 429, body: {}, retryAfterS }, 2);
    assert.deepEqual(
      [answered(), answered(0), answered(3), answered(60)],
      [2_000, 0, 3_000, 10_000],
    );
  });

  it('refuses wrong usage', async () => {
    const period = await run({ period: 'soon' });
    assert.equal(period.code, 2);
    assert.match(period.stderr, /--period has the value "soon"/);
  });

  it('sends nothing outside a pod, unless it is forced to', async () => {
    for (const [flags, environment, said] of [
      [{ once: 'true' }, {}, /this does not look like a pod, .*; --outside-pod runs it$/m],
      [{ period: 'soon', 'outside-pod': 'true' }, {}, /--period has the value "soon"/],
      [
        { period: 'soon' },
        { KUBERNETES_SERVICE_HOST: '10.0.0.1' },
        /--period has the value "soon"/,
      ],
    ] as const) {
      const { code, stderr } = await record((io) => demo({ flags, rest: [] }, io), environment);
      assert.equal(code, 2);
      assert.match(stderr, said);
    }
  });

  it('continues until it is stopped', async () => {
    const stop = new AbortController();
    let lines = 0;
    const stdout = () => {
      lines++;
      if (lines === 4) stop.abort();
    };
    const code = await beside(giveToken, (port) => {
      const io = { environment: at(port), stdout, stderr: () => undefined, stop: stop.signal };
      return demo({ flags: { period: '10ms' }, rest: [] }, io);
    });
    assert.deepEqual([code, lines], [0, 4], 'two rounds');
  });
});
