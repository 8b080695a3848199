import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { request } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';
import { after, before, describe, it, type TestContext } from 'node:test';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import type { Readiness } from '../../../../src/nmi/base/readiness.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { tuning } from '../../../../src/nmi/config/tuning.ts';
import {
  openExplain,
  readHealth,
  type ExplainOptions,
} from '../../../../src/nmi/explain/agent-explain.ts';
import { explanationSchema, type Explanation } from '../../../../src/nmi/explain/explanation.ts';
import type { ExplainQuery } from '../../../../src/nmi/explain/question.ts';
import { openExplainServer } from '../../../../src/nmi/explain/socket.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const explanation: Explanation = {
  schema: explanationSchema,
  kind: 'no-pod',
  problem: 'for the test',
  node: {
    name: 'node-1',
    redirect: { mode: 'none', detail: 'no redirect', problem: undefined },
    watches: { unsynced: [], silentForMs: 0, failing: [] },
  },
};

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nmi-explain-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function open(
  t: TestContext,
  path: string,
  explain: (query: ExplainQuery) => Explanation = () => explanation,
  ready: () => Readiness = () => ({ ready: false, missing: { redirect: 'for the test' } }),
) {
  const warnings: Readonly<Record<string, unknown>>[] = [];
  const errors: Readonly<Record<string, unknown>>[] = [];
  const ignore = () => undefined;
  const server = await openExplainServer({
    path,
    explain,
    ready,
    log: {
      debug: ignore,
      info: ignore,
      warn: (fields) => warnings.push(fields),
      error: (fields) => errors.push(fields),
    },
  });
  t.after(() => server[Symbol.asyncDispose]());
  return { server, warnings, errors };
}

function get(socketPath: string, path: string, method = 'GET') {
  return new Promise<{ status: number; body: string }>((resolve, reject) => {
    const asking = request({ socketPath, path, method, agent: false }, (response) => {
      const status = response.statusCode ?? 0;
      readText(response).then((body) => resolve({ status, body }), reject);
    });
    asking.on('error', reject).end();
  });
}

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o777;
}

describe('the socket of explanations', () => {
  it('is only for its own user, in a folder made for it, and is removed with the agent', async (t) => {
    const path = join(folder, 'made', 'explain.sock');
    const { server, warnings } = await open(t, path);
    const off = await open(t, '');
    assert.deepEqual([warnings, off.warnings], [[], []]);
    assert.equal(await modeOf(path), 0o600);
    assert.equal(await modeOf(join(folder, 'made')), 0o700);
    await server[Symbol.asyncDispose]();
    await assert.rejects(stat(path), { code: 'ENOENT' });
  });

  it('answers one path to one method', async (t) => {
    const path = join(folder, 'methods.sock');
    const queries: ExplainQuery[] = [];
    await open(t, path, (query) => {
      queries.push(query);
      return explanation;
    });
    const { status, body } = await get(path, '/explain?pod=a%2Fb&client_id=c');
    assert.equal(status, 200);
    assert.deepEqual(JSON.parse(body), JSON.parse(JSON.stringify(explanation)));
    assert.deepEqual(queries, [
      {
        who: { kind: 'pod', namespace: 'a', name: 'b' },
        selector: { kind: 'client_id', value: 'c' },
        resource: undefined,
      },
    ]);
    assert.equal((await get(path, '/explain?pod=x')).status, 400);
    assert.equal((await get(path, '/metadata/identity/oauth2/token')).status, 404);
    assert.equal((await get(path, `/explain?pod=${'x'.repeat(8 * 1024)}`)).status, 431);
    for (const method of ['POST', 'DELETE']) {
      assert.equal((await get(path, '/explain', method)).status, 405);
    }
    assert.equal(queries.length, 1);
  });

  it('reports whether the agent is ready', async (t) => {
    const path = join(folder, 'ready.sock');
    await open(t, path);
    const { status, body } = await get(path, '/ready');
    assert.equal(status, 503);
    assert.deepEqual(JSON.parse(body), { ready: false, missing: { redirect: 'for the test' } });
    assert.equal((await get(path, '/ready', 'POST')).status, 405);
    const other = join(folder, 'other.sock');
    await open(t, other, undefined, () => ({ ready: true, missing: {} }));
    assert.equal((await get(other, '/ready')).status, 200);
  });

  it('is closed without waiting for a request that a client never completes', async (t) => {
    const path = join(folder, 'late.sock');
    const { server } = await open(t, path);
    const client = connect({ path });
    const closed = once(
      client.on('error', () => undefined),
      'close',
    );
    await new Promise<void>((resolve) =>
      client.write('GET /explain HTTP/1.1\r\n', () => resolve()),
    );
    // The server has read the first part by then.
    assert.equal((await get(path, '/ready')).status, 503);
    const startedMs = performance.now();
    await Promise.all([server[Symbol.asyncDispose](), closed]);
    assert.ok(performance.now() - startedMs < 4_000);
  });

  it('survives an error in an explanation, and logs the reason', async (t) => {
    const path = join(folder, 'bug.sock');
    const { errors } = await open(t, path, () => {
      throw new TypeError('a bug of ours');
    });
    const { status, body } = await get(path, '/explain');
    assert.equal(status, 500);
    assert.ok(!body.includes('a bug of ours'));
    assert.match(String(errors[0]?.['err']), /a bug of ours/);
    assert.equal((await get(path, '/explain')).status, 500);
  });

  it('replaces the socket of a killed agent', async (t) => {
    const path = join(folder, 'left.sock');
    // The name is moved away so that closing does not remove it: a socket without a listener.
    const left = createServer();
    await new Promise<void>((resolve) =>
      left.listen({ path: join(folder, 'first.sock') }, resolve),
    );
    await rename(join(folder, 'first.sock'), path);
    await new Promise((resolve) => left.close(resolve));
    const { warnings } = await open(t, path);
    assert.deepEqual(warnings, []);
    assert.equal((await get(path, '/explain')).status, 200);
  });

  it('is left to an agent that answers on it, with one warning', async (t) => {
    const path = join(folder, 'taken.sock');
    await open(t, path);
    const second = await open(t, path);
    assert.equal(second.warnings.length, 1);
    assert.match(String(second.warnings[0]?.['problem']), /another process/);
    await second.server[Symbol.asyncDispose]();
    assert.equal((await get(path, '/explain')).status, 200, 'the first still answers');
  });

  it('never replaces a file', async (t) => {
    const path = join(folder, 'precious');
    await writeFile(path, 'kept');
    const { warnings } = await open(t, path);
    assert.match(String(warnings[0]?.['problem']), /no socket/);
    assert.equal(await readFile(path, 'utf8'), 'kept');
  });

  it('is not created where others can write, nor where nobody can', async (t) => {
    const shared = join(folder, 'shared');
    await mkdir(shared);
    await chmod(shared, 0o777);
    const link = join(folder, 'link');
    await symlink(shared, link);
    for (const [path, problem] of [
      [join(shared, 'a.sock'), /this user alone/],
      [join(link, 'a.sock'), /this user alone/],
      ['/proc/nmi/explain.sock', /^E[A-Z]+$/],
      [join(folder, 'precious', 'explain.sock'), /this user alone|^E[A-Z]+$/],
      [join(folder, 'no', 'such', 'explain.sock'), /^ENOENT$/],
    ] as const) {
      const { warnings } = await open(t, path);
      assert.equal(warnings.length, 1, path);
      assert.match(String(warnings[0]?.['problem']), problem, path);
    }
  });
});

const kernel: Parameters<typeof readHealth>[1] = {
  mode: 'ebpf',
  status: () => ({ state: 'active', detail: 'as wanted', problems: [] }),
  problem: () => undefined,
};

function watchesOf(ages: readonly (number | undefined)[]) {
  const stats = Object.fromEntries(
    ages.map((lastContactAgeMs, index) => [`kind-${index}`, { lastContactAgeMs }]),
  );
  const old = [
    { resource: 'pods', stalenessMs: 300_000 },
    { resource: 'bindings', stalenessMs: 300_001 },
  ];
  const watches = { unsynced: () => ['pods'], ages: () => old, stats: () => stats };
  return { watches, podsAskedAs: () => 'node' } as unknown as Parameters<typeof readHealth>[2];
}

describe('the health of a node', () => {
  it('has the age of the last event of the least active watch, and the watches that are old', () => {
    const healthOf = (...ages: readonly (number | undefined)[]) =>
      readHealth('n', kernel, watchesOf(ages), tuning);
    assert.equal(healthOf(1_000.4, 3_000.6, 20).watches.silentForMs, 3_001);
    assert.equal(healthOf(1_000, undefined).watches.silentForMs, undefined, 'no event yet');
    const { name, redirect, watches } = healthOf(1);
    assert.deepEqual(redirect, { mode: 'ebpf', detail: 'as wanted', problem: undefined });
    assert.deepEqual(
      [name, watches.unsynced, watches.failing, watches.podsAskedAs],
      ['n', ['pods'], [], 'node'],
    );
    assert.deepEqual(watches.stale, [{ resource: 'bindings', stalenessMs: 300_001 }]);
  });
});

describe('the socket of an agent', () => {
  it('explains the state of now, with the facts of the agent', async (t) => {
    const socketPath = join(folder, 'agent.sock');
    const parsed = parseConfig({ node: 'n' }, { NMI_EXPLAIN_SOCKET: socketPath });
    assert.ok(parsed.ok, JSON.stringify(parsed));
    const clock = new HandClock();
    const log = { child: () => ({ warn: assert.fail, error: assert.fail }) };
    const server = await openExplain({
      config: parsed.config,
      tuning,
      kernel,
      state: { pods: new PodIndex(clock), ...watchesOf([1]) },
      parts: [{ conditions: [{ name: 'redirect', problem: () => 'for the test' }] }],
      clock,
      log,
    } as unknown as ExplainOptions);
    t.after(() => server[Symbol.asyncDispose]());
    const read = async (path: string) => {
      const { body } = await get(socketPath, path);
      return JSON.parse(body) as Record<string, Record<string, unknown>>;
    };
    const { kind, node, agent, pods } = await read('/explain');
    assert.deepEqual([kind, node?.['name'], pods], ['node', 'n', []]);
    assert.deepEqual(agent?.['unmetConditions'], ['redirect']);
    assert.deepEqual(await read('/ready'), { ready: false, missing: { redirect: 'for the test' } });
  });
});
