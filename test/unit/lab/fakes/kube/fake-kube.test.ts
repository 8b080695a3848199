/** What only the fake has; what it shares with a real API server, `test/cluster/contract.test.ts` holds. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { describe, it } from 'node:test';
import { openFakeKube, type FakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';

function pod(name: string, node = 'node-a', labels: Record<string, string> = {}) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', labels },
    spec: { nodeName: node },
    status: { phase: 'Running' },
  };
}

interface Answer {
  readonly status: number;
  readonly body: Body;
}

/** The fields of answers that the tests read. */
interface Body {
  readonly kind: string;
  readonly message?: string;
  readonly items: readonly { readonly metadata: { readonly name: string } }[];
  readonly resources: readonly { readonly name: string }[];
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly creationTimestamp: string;
    readonly continue?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
}

async function ask(fake: FakeKube, path: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(fake.url + path, init);
  return { status: response.status, body: (await response.json()) as Body };
}

function json(method: string, body: unknown, type = 'application/json'): RequestInit {
  return { method, body: JSON.stringify(body), headers: { 'content-type': type } };
}

function names({ body }: Answer): string[] {
  return body.items.map(({ metadata }) => metadata.name);
}

interface Line {
  readonly type: string;
  readonly object: { readonly metadata: { name?: string; resourceVersion: string }; code?: number };
}

/** The first `count` lines of a watch, as short text; the watch is then closed. */
async function linesOf(
  fake: FakeKube,
  path: string,
  count: number,
  whenOpen: () => void = () => undefined,
): Promise<string[]> {
  const stop = new AbortController();
  const response = await fetch(fake.url + path, { signal: stop.signal });
  whenOpen();
  const lines: string[] = [];
  let text = '';
  assert.ok(response.body);
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      const { type, object } = JSON.parse(text.slice(0, end)) as Line;
      text = text.slice(end + 1);
      lines.push(
        `${type} ${object.code ?? object.metadata.name ?? object.metadata.resourceVersion}`,
      );
    }
    if (lines.length >= count) break;
  }
  stop.abort();
  return lines;
}

/** The received part of a body that was cut; `fetch` would drop it. */
async function rawBody(url: string): Promise<string> {
  const [response] = (await once(get(url), 'response')) as [IncomingMessage];
  let text = '';
  response.setEncoding('utf8');
  response.on('data', (chunk: string) => (text += chunk));
  await assert.rejects(once(response, 'end'), { code: 'ECONNRESET' });
  return text;
}

const pods = '/api/v1/namespaces/shop/pods';

describe('writes to the fake Kubernetes API', () => {
  it('answer each request over HTTP as a server does to kubectl', async () => {
    await using fake = await openFakeKube();
    const { body: created } = await ask(fake, pods, json('POST', pod('one')));
    const { uid, creationTimestamp, resourceVersion } = created.metadata;
    assert.match(uid, /^[0-9a-f-]{36}$/);
    assert.match(creationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const one = `${pods}/one`;
    const labels = { a: 'b' };
    const merge = json('PATCH', { metadata: { labels } }, 'application/merge-patch+json');
    const jsonPatch = (op: string, path: string): RequestInit =>
      json('PATCH', [{ op, path, value: 'x' }], 'application/json-patch+json');
    const { body: patched } = await ask(fake, one, merge);
    assert.deepEqual(patched.metadata.labels, labels);
    assert.notEqual(patched.metadata.resourceVersion, resourceVersion);
    for (const [status, path, init] of [
      [409, pods, json('POST', pod('one'))],
      [415, one, json('PATCH', [])],
      [200, one, jsonPatch('add', '/note')],
      [200, one, jsonPatch('replace', '/note')],
      [422, one, jsonPatch('replace', '/none')],
      [200, one, jsonPatch('test', '/note')],
      [422, one, jsonPatch('test', '/kind')],
      [400, one, jsonPatch('add', '/metadata/name')],
      [409, one, jsonPatch('replace', '/metadata/resourceVersion')],
      [409, one, json('PUT', { ...pod('one'), metadata: created.metadata })],
      [200, one, json('PUT', pod('one', 'node-b'))],
      [200, one, {}],
      [200, one, { method: 'DELETE' }],
      [404, one, {}],
      [404, one, { method: 'DELETE' }],
      [404, one, json('PUT', pod('one'))],
      [405, pods, { method: 'DELETE' }],
      [400, pods, json('POST', 7)],
      [400, pods, json('POST', null)],
      [400, pods, json('POST', [])],
      [422, pods, json('POST', { metadata: {} })],
      [422, pods, json('POST', { kind: 'Toaster', metadata: { name: 'x' } })],
      [200, '/api', {}],
      [200, '/version', {}],
    ] as const) {
      const answer = await ask(fake, path, init);
      const what = `${path} ${JSON.stringify(init)}`;
      assert.equal(answer.status, status, what);
      if (status >= 400) assert.equal(answer.body.kind, 'Status', what);
    }
    for (const path of ['/', '/api/v2/pods', '/api/v1/toasters', '/api/v1/pods/one']) {
      assert.equal((await fetch(fake.url + path)).status, 404, path);
    }
    const { body } = await ask(fake, '/apis/aadpodidentity.k8s.io/v1');
    assert.ok(body.resources.some(({ name }) => name === 'azureidentitybindings'));
  });

  it('keep the uid of an applied object, give a recreated one another, and ignore no-ops', async () => {
    await using fake = await openFakeKube();
    const ref = { kind: 'Pod', namespace: 'shop', name: 'one' };
    const first = fake.apply(pod('one'));
    const again = fake.apply(pod('one'));
    assert.equal(again, first);
    const moved = fake.apply(pod('one', 'node-b'));
    assert.equal(moved.metadata.uid, first.metadata.uid);
    assert.ok(Number(moved.metadata.resourceVersion) > Number(first.metadata.resourceVersion));
    assert.equal(fake.delete(ref), true);
    assert.equal(fake.delete(ref), false);
    assert.equal(fake.get(ref), undefined);
    assert.notEqual(fake.apply(pod('one')).metadata.uid, first.metadata.uid);
    const given = { ...pod('two'), metadata: { name: 'two', namespace: 'shop', uid: 'mine' } };
    assert.equal(fake.apply(given).metadata.uid, 'mine');
    const labelled = fake.patch(ref, { metadata: { labels: { a: 'b' } }, status: null });
    assert.deepEqual([labelled.metadata.labels, labelled['status']], [{ a: 'b' }, undefined]);
    assert.throws(() => fake.patch({ ...ref, name: 'gone' }, {}), TypeError);
    assert.throws(() => fake.patch(ref, { metadata: { name: 'other' } }), TypeError);
    assert.throws(() => fake.apply({ kind: 'Pod' }), TypeError);
  });
});

describe('lists and watches of the fake Kubernetes API', () => {
  it('come to an end, however many lists began before', async () => {
    await using fake = await openFakeKube();
    for (const name of ['a', 'b', 'c']) fake.apply(pod(name));
    for (let began = 0; began < 99; began++) await ask(fake, `${pods}?limit=1`);
    const first = await ask(fake, `${pods}?limit=1`);
    const next = (page: typeof first): string =>
      `${pods}?limit=1&continue=${page.body.metadata.continue ?? ''}`;
    const second = await ask(fake, next(first));
    assert.deepEqual(names(await ask(fake, next(second))), ['c']);
    assert.deepEqual(names(await ask(fake, next(first))), ['b'], 'a page can be asked for again');
  });

  it('send bookmarks with the newest version on request, never before a delayed event', async () => {
    await using fake = await openFakeKube({ bookmarkEveryMs: 5 });
    fake.faults.delayEventsMs = 30;
    const path = `${pods}?watch=1&resourceVersion=${fake.store.version}&allowWatchBookmarks=true`;
    const startMs = performance.now();
    const lines = await linesOf(fake, path, 8, () => void fake.apply(pod('a')));
    assert.ok(performance.now() - startMs >= 30);
    const added = lines.indexOf('ADDED a');
    const told = lines.indexOf(`BOOKMARK ${fake.store.version}`);
    assert.ok(added >= 0 && told > added, lines.join(', '));
  });

  it('answer 410 for a version older than a compaction, by an event or by status', async () => {
    await using fake = await openFakeKube();
    fake.apply(pod('a'));
    const path = `${pods}?watch=1&resourceVersion=${fake.store.version}`;
    fake.compact();
    assert.deepEqual(await linesOf(fake, path, 99), ['ERROR 410']);
    fake.faults.goneByStatus = true;
    assert.equal((await ask(fake, path)).status, 410);
  });
});

describe('the faults of the fake Kubernetes API', () => {
  it('fail the planned requests and no other', async () => {
    await using fake = await openFakeKube();
    fake.faults.failNext(2, 503, { containing: '/pods', retryAfterSec: 3 });
    assert.equal((await ask(fake, '/api/v1/secrets')).status, 200);
    const response = await fetch(`${fake.url}/api/v1/pods`);
    assert.equal(response.headers.get('retry-after'), '3');
    await response.text();
    assert.deepEqual([(await ask(fake, pods)).status, (await ask(fake, pods)).status], [503, 200]);
    fake.faults.notInstalled.add('azureidentities');
    const path = '/apis/aadpodidentity.k8s.io/v1/azureidentities';
    assert.equal((await fetch(fake.url + path)).status, 404);
  });

  it('refuse another token than the required one, which the kubeconfig carries', async () => {
    await using fake = await openFakeKube();
    fake.faults.requiredToken = 'lab-token';
    assert.equal((await ask(fake, pods)).status, 401);
    const headers = { authorization: 'Bearer lab-token' };
    assert.equal((await ask(fake, pods, { headers })).status, 200);
    assert.match(fake.kubeconfig(), /token: "lab-token"/);
    assert.match(fake.kubeconfig(), new RegExp(`server: ${fake.url}`));
  });

  it('cut a watch after so many bytes, and all connections at once', async () => {
    await using fake = await openFakeKube();
    fake.apply(pod('a'));
    fake.faults.cutNextWatchAfterBytes = 10;
    assert.equal(await rawBody(`${fake.url}${pods}?watch=1`), '{"type":"A');
    assert.equal(fake.watches(), 0);

    const open = await fetch(`${fake.url}${pods}?watch=1`);
    assert.equal(fake.watches('pods'), 1);
    fake.cutConnections();
    await assert.rejects(open.text());
  });

  it('delay events of one kind behind those of another', async () => {
    await using fake = await openFakeKube();
    fake.faults.delayKindsMs.set('pods', 50);
    const arrived: string[] = [];
    const from = `watch=1&resourceVersion=${fake.store.version}`;
    const follow = async (plural: string, whenOpen?: () => void): Promise<void> => {
      arrived.push(...(await linesOf(fake, `/api/v1/${plural}?${from}`, 1, whenOpen)));
    };
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's', namespace: 'shop' } };
    await Promise.all([
      follow('pods', () => void fake.apply(pod('a'))),
      follow('secrets', () => void fake.apply(secret)),
    ]);
    assert.deepEqual(arrived, ['ADDED s', 'ADDED a']);
  });

  it('lead every second connection to a server that is behind, until it has caught up', async () => {
    await using fake = await openFakeKube();
    fake.apply(pod('a'));
    fake.apply(pod('b'));
    const from = fake.store.version;
    fake.faults.memoryLagMs = 400;
    // Of one connection each.
    const [late, current] = [1, 2].map(() => new Agent({ keepAlive: true, maxSockets: 1 }));
    const listsOf = async (agent?: Agent) => {
      const bodies = [await text(agent, '?resourceVersion=0'), await text(agent, '')];
      return bodies.map((body) => names({ status: 200, body: JSON.parse(body) as Body }).join(' '));
    };
    const text = async (agent: Agent | undefined, query: string): Promise<string> => {
      const asked = get(`${fake.url}${pods}${query}`, agent === undefined ? {} : { agent });
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      return Buffer.concat(await response.toArray()).toString();
    };
    fake.apply(pod('a', 'node-b'));
    fake.delete({ kind: 'Pod', namespace: 'shop', name: 'a' });
    fake.apply(pod('c'));
    // A list of the newest state is read from etcd.
    assert.deepEqual(await listsOf(late), ['a b', 'b c']);
    assert.deepEqual(await listsOf(current), ['b c', 'b c']);
    const tooNew = await text(late, `?resourceVersion=${fake.store.version}`);
    assert.match(tooNew, /Too large resource version/);
    const lines = await text(late, `?watch=1&timeoutSeconds=1&resourceVersion=${from}`);
    const events = lines
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line);
    assert.deepEqual(
      events.map(({ type, object }) => `${type} ${object.metadata.name ?? ''}`),
      ['MODIFIED a', 'DELETED a', 'ADDED c'],
    );
    assert.deepEqual(await listsOf(late), ['b c', 'b c']);
    for (const agent of [late, current]) agent?.destroy();
  });

  it('close everything with the server', async () => {
    const fake = await openFakeKube();
    const open = await fetch(`${fake.url}${pods}?watch=1`);
    fake.faults.hang = true;
    const hanging = fetch(`${fake.url}${pods}`);
    hanging.catch(() => undefined);
    await fake[Symbol.asyncDispose]();
    await assert.rejects(open.text());
    await assert.rejects(hanging);
  });
});
