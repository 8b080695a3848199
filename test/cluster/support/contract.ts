/**
 * What a client of the Kubernetes API depends on, as tests for every server that we call one: the
 * real ones, and the fake of the lab, which therefore cannot drift.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { openApi } from './api.ts';
import type { Answer, Api, ApiAccess, KubeBody, WatchLine } from './api.ts';
import { runPod, setPodStatus } from './pods.ts';
import { verifyToken, type SigningKey } from './service-account-token.ts';

/** A server under the contract, with the operations that are specific to it. */
export interface ContractServer {
  /** A user who may do everything. */
  readonly api: Api;
  /** The same user, for another kind of client. */
  readonly access: ApiAccess;
  /** With its `default` service account. */
  createNamespace(name: string): Promise<void>;
  /** From now on every version returned so far is too old. */
  forgetHistory(): Promise<void>;
  /** @returns how to restore the server from this backup. */
  backUp(): Promise<() => Promise<void>>;
  /** The answer to invalid credentials. */
  askUnknown(path: string): Promise<Answer>;
  /** The answer to a known user without permission. */
  askForbidden(path: string): Promise<Answer>;
  /** The server refuses this user's requests as too many, until it is disposed of. */
  throttle(): Promise<Throttled>;
}

/** A user who may list identities, and who has to wait. */
export interface Throttled extends AsyncDisposable {
  readonly access: ApiAccess;
}

const group = 'aadpodidentity.k8s.io';
const mergePatch = { contentType: 'application/merge-patch+json' };

/** Path of the collection. */
export function identitiesIn(namespace: string): string {
  return `/apis/${group}/v1/namespaces/${namespace}/azureidentities`;
}

/** Registers the tests; each works in a separate namespace. */
export function contractTests(server: () => ContractServer): void {
  async function namespace(name: string): Promise<{ readonly pods: string; readonly ids: string }> {
    await server().createNamespace(name);
    return {
      pods: `/api/v1/namespaces/${name}/pods`,
      ids: identitiesIn(name),
    };
  }
  const api = (): Api => server().api;

  it('an empty list has a version', async () => {
    const { pods, ids } = await namespace('empty');
    for (const [path, kind] of [
      [pods, 'PodList'],
      [ids, 'AzureIdentityList'],
    ] as const) {
      const list = await api().expect('GET', path);
      assert.deepEqual([list.kind, list.items], [kind, []]);
      assert.match(list.metadata.resourceVersion, /^[1-9]\d*$/);
    }
  });

  it('a list comes in pages of one snapshot', async () => {
    const { ids } = await namespace('pages');
    for (const name of ['a', 'b', 'c', 'd', 'e']) await api().expect('POST', ids, identity(name));
    const first = await api().expect('GET', `${ids}?limit=2`);
    assert.deepEqual(namesOf(first), ['a', 'b']);
    assert.equal(first.metadata.remainingItemCount, 3);
    await api().expect('DELETE', `${ids}/c`);
    await api().expect('POST', ids, identity('f'));
    const second = await api().expect('GET', nextPage(ids, first));
    assert.deepEqual(namesOf(second), ['c', 'd']);
    assert.equal(second.metadata.resourceVersion, first.metadata.resourceVersion);
    const third = await api().expect('GET', nextPage(ids, second));
    assert.deepEqual([namesOf(third), third.metadata.continue ?? ''], [['e'], '']);
    assert.deepEqual(namesOf(await api().expect('GET', ids)), ['a', 'b', 'd', 'e', 'f']);
  });

  it('a page of a selection does not report how many remain', async () => {
    const { pods } = await namespace('selected-pages');
    for (const name of ['a', 'b', 'c']) await api().expect('POST', pods, pod(name));
    for (const selector of ['labelSelector=app', 'fieldSelector=spec.nodeName%3Dnode-a']) {
      const { metadata } = await api().expect('GET', `${pods}?limit=2&${selector}`);
      assert.notEqual(metadata.continue ?? '', '');
      assert.equal(metadata.remainingItemCount, undefined);
    }
  });

  it('a list from memory is not paged', async () => {
    const { pods } = await namespace('memory');
    for (const name of ['a', 'b', 'c']) await api().expect('POST', pods, pod(name));
    const list = await api().expect('GET', `${pods}?limit=2&resourceVersion=0`);
    // The list from memory may be older.
    assert.ok(namesOf(list).length <= 3);
    assert.equal(list.metadata.continue ?? '', '');
  });

  it('a list refuses invalid tokens and versions', async () => {
    const { pods } = await namespace('bad-lists');
    for (const name of ['a', 'b']) await api().expect('POST', pods, pod(name));
    const page = await api().expect('GET', `${pods}?limit=1`);
    assertRefused(await api().request('GET', `${pods}?continue=none`), 400, 'BadRequest', {
      message: /^invalid continue token: continue key is not valid: /,
    });
    assertRefused(
      await api().request('GET', `${nextPage(pods, page)}&resourceVersion=1`),
      ...[400, 'BadRequest'],
      { message: /^specifying resource version is not allowed when using continue$/ },
    );
    assertRefused(await api().request('GET', `${pods}?resourceVersion=x`), 400, 'BadRequest', {
      message: /^invalid resource version: .*: Invalid value: "x": /,
    });
    assertRefused(await api().request('GET', `${pods}?limit=x`), 400, 'BadRequest', {
      message: /^strconv\.ParseInt: parsing "x": invalid syntax$/,
    });
  });

  it('a list of a future version is refused as retryable', async () => {
    const { pods } = await namespace('early-lists');
    const { resourceVersion } = (await api().expect('GET', pods)).metadata;
    const version = Number(resourceVersion) + 1_000_000;
    const answer = await api().request('GET', `${pods}?resourceVersion=${version}`);
    assertRefused(answer, 504, 'Timeout', {
      message: new RegExp(`^Timeout: Too large resource version: ${version}, current: \\d+$`),
      details: {
        causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
        retryAfterSeconds: 1,
      },
    });
    assert.equal(answer.headers['retry-after'], '1');
  });

  it('label selectors', async () => {
    const { pods } = await namespace('labels');
    await api().expect('POST', pods, pod('a', { app: 'x', tier: 'web' }));
    await api().expect('POST', pods, pod('b', { app: 'y' }));
    await api().expect('POST', pods, pod('c', { tier: '' }));
    const cases: readonly [selector: string, names: string][] = [
      ['app=x', 'a'],
      ['app==x', 'a'],
      ['app!=x', 'b c'],
      ['app', 'a b'],
      ['!app', 'c'],
      ['tier=', 'c'],
      ['app=x,tier=web', 'a'],
      ['app=x,tier!=web', ''],
      ['app in (x,y)', 'a b'],
      ['app in (x)', 'a'],
      ['app notin (x)', 'b c'],
      ['app in (x,y),tier', 'a'],
      ['tier in (web,)', 'a c'],
    ];
    for (const [selector, names] of cases) {
      const list = await api().expect('GET', `${pods}?${query({ labelSelector: selector })}`);
      assert.equal(namesOf(list).join(' '), names, selector);
    }
    for (const selector of ['app in x', 'app in (x', '=x', 'app=x=y', 'a b']) {
      const answer = await api().request('GET', `${pods}?${query({ labelSelector: selector })}`);
      assertRefused(answer, 400, 'BadRequest', { message: /./ }, selector);
    }
  });

  it('field selectors', async () => {
    const { pods, ids } = await namespace('fields');
    await runPod(api(), { namespace: 'fields', name: 'a', node: 'node-a', ip: '10.1.0.1' });
    await runPod(api(), { namespace: 'fields', name: 'b', node: 'node-b', ip: '10.2.0.1' });
    await runPod(api(), { namespace: 'fields', name: 'c', node: 'node-a', ip: '10.1.0.2' });
    await setPodStatus(api(), { namespace: 'fields', name: 'c' }, { phase: 'Failed' });
    await api().expect('POST', ids, identity('a'));
    await api().expect('POST', ids, identity('b'));
    const cases: readonly [path: string, selector: string, names: string][] = [
      [pods, 'spec.nodeName=node-a', 'a c'],
      [pods, 'spec.nodeName==node-a,status.phase!=Succeeded,status.phase!=Failed', 'a'],
      [pods, 'spec.nodeName!=node-a', 'b'],
      [pods, 'spec.nodeName=', ''],
      [pods, 'metadata.name=c', 'c'],
      [pods, 'metadata.namespace!=fields', ''],
      [pods, 'spec.serviceAccountName=default', 'a b c'],
      [pods, 'status.podIP=10.2.0.1', 'b'],
      [ids, 'metadata.name=b', 'b'],
      [ids, 'metadata.namespace=fields', 'a b'],
    ];
    for (const [path, selector, names] of cases) {
      const list = await api().expect('GET', `${path}?${query({ fieldSelector: selector })}`);
      assert.equal(namesOf(list).join(' '), names, selector);
    }
    const refused: readonly [path: string, selector: string, message: string][] = [
      [pods, 'spec.containers=x', 'field label not supported: spec.containers'],
      [pods, 'status.phase', "invalid selector: 'status.phase'; can't understand 'status.phase'"],
      [ids, 'spec.type=0', 'field label not supported: spec.type'],
    ];
    for (const [path, selector, message] of refused) {
      const answer = await api().request('GET', `${path}?${query({ fieldSelector: selector })}`);
      assertRefused(answer, 400, 'BadRequest', { message });
    }
  });

  it('an object is created, changed and deleted, each with a version of its own', async () => {
    const { ids } = await namespace('objects');
    const created = await api().request('POST', ids, identity('a'));
    assert.equal(created.status, 201);
    const { metadata } = created.body;
    assert.match(metadata.uid, /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/);
    assert.match(String(metadata['creationTimestamp']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    const change = { spec: { adResourceID: 'b' } };
    const changed = await api().expect('PATCH', `${ids}/a`, change, mergePatch);
    assert.equal(changed.metadata.uid, metadata.uid);
    assert.ok(Number(changed.metadata.resourceVersion) > Number(metadata.resourceVersion));
    const same = await api().expect('PATCH', `${ids}/a`, change, mergePatch);
    assert.equal(same.metadata.resourceVersion, changed.metadata.resourceVersion);
    const put = await api().expect('PUT', `${ids}/a`, { ...same, spec: { replicas: 1 } });
    assert.deepEqual(put['spec'], { replicas: 1 });
    assert.equal((await api().request('DELETE', `${ids}/a`)).status, 200);
    assert.equal((await api().request('GET', `${ids}/a`)).status, 404);
  });

  it('a refused write reports why', async () => {
    const { pods, ids } = await namespace('refusals');
    const kept = await api().expect('POST', pods, pod('kept'));
    await api().expect('POST', ids, identity('kept'));
    const qualified = { group, kind: 'azureidentities' };
    const noPod: Said = {
      status: 404,
      reason: 'NotFound',
      message: 'pods "none" not found',
      details: { name: 'none', kind: 'pods' },
    };
    const noIdentity: Said = {
      status: 404,
      reason: 'NotFound',
      message: `azureidentities.${group} "none" not found`,
      details: { name: 'none', ...qualified },
    };
    assertSays(await api().request('GET', `${pods}/none`), noPod);
    assertSays(await api().request('DELETE', `${pods}/none`), noPod);
    assertSays(await api().request('PATCH', `${pods}/none`, {}, mergePatch), noPod);
    assertSays(await api().request('GET', `${ids}/none`), noIdentity);
    assertSays(await api().request('DELETE', `${ids}/none`), noIdentity);
    assertSays(await api().request('POST', pods, pod('kept')), {
      status: 409,
      reason: 'AlreadyExists',
      message: 'pods "kept" already exists',
      details: { name: 'kept', kind: 'pods' },
    });
    assertSays(await api().request('POST', ids, identity('kept')), {
      status: 409,
      reason: 'AlreadyExists',
      message: `azureidentities.${group} "kept" already exists`,
      details: { name: 'kept', ...qualified },
    });
    const stale = { ...kept, metadata: { ...kept.metadata, resourceVersion: '1', labels: {} } };
    assertSays(await api().request('PUT', `${pods}/kept`, stale), {
      status: 409,
      reason: 'Conflict',
      message:
        'Operation cannot be fulfilled on pods "kept": the object has been modified; ' +
        'please apply your changes to the latest version and try again',
      details: { name: 'kept', kind: 'pods' },
    });
    assertSays(
      await api().request('PATCH', `${pods}/kept`, { metadata: { name: 'other' } }, mergePatch),
      {
        status: 400,
        reason: 'BadRequest',
        message: 'the name of the object (other) does not match the name on the URL (kept)',
      },
    );
    assertSays(await api().request('PUT', pods, kept), notAllowed);
    assertSays(await api().request('POST', `${pods}/kept`, kept), notAllowed);
    assertSays(await api().request('PATCH', `${pods}/kept`, {}, { contentType: 'text/plain' }), {
      status: 415,
      reason: 'UnsupportedMediaType',
      details: {},
      message: '415: Unsupported Media Type',
    });
    assertRefused(await api().request('POST', pods, '{'), 400, 'BadRequest', {
      message: /^the object provided is unrecognized \(must be of type Pod\): /,
    });
    assertRefused(await api().request('POST', ids, { metadata: {} }), 400, 'BadRequest', {
      message: /^the object provided is unrecognized \(must be of type AzureIdentity\): /,
    });
  });

  it('a type that is not installed is not found, in plain text', async () => {
    for (const path of ['/apis/none.example/v1/things', `/apis/${group}/v1/things`]) {
      const { status, headers, body } = await api().request('GET', path);
      assert.deepEqual([status, body.message], [404, '404 page not found\n']);
      assert.equal(headers['content-type'], 'text/plain; charset=utf-8');
    }
  });

  it('a watch without a version begins with the existing objects', async () => {
    const { ids } = await namespace('from-nothing');
    await api().expect('POST', ids, identity('a'));
    await api().expect('POST', ids, identity('b'));
    for (const version of ['', '&resourceVersion=0']) {
      // The memory of a new type may be out of date at first.
      const lines = await take(api(), `${ids}?watch=1${version}`, 3, async () => {
        await api().expect(
          'PATCH',
          `${ids}/a`,
          { spec: { adResourceID: `v${version}` } },
          mergePatch,
        );
      });
      assert.deepEqual(lines.map(renderLine), ['ADDED a', 'ADDED b', 'MODIFIED a']);
    }
  });

  it('a watch reports every change after its version, in order', async () => {
    const { ids } = await namespace('after-version');
    await api().expect('POST', ids, identity('before'));
    const { metadata } = await api().expect('GET', ids);
    await api().expect('POST', ids, identity('between'));
    const path = `${ids}?watch=true&resourceVersion=${metadata.resourceVersion}`;
    const lines = await take(api(), path, 5, async () => {
      await api().expect('PATCH', `${ids}/before`, { spec: { adResourceID: 'x' } }, mergePatch);
      await api().expect('DELETE', `${ids}/between`);
      await api().expect('POST', ids, identity('between'));
      await api().expect('DELETE', `${ids}/before`);
    });
    assert.deepEqual(lines.map(renderLine), [
      ...['ADDED between', 'MODIFIED before', 'DELETED between', 'ADDED between'],
      'DELETED before',
    ]);
    const versions = lines.map(({ object }) => Number(object.metadata.resourceVersion));
    assert.deepEqual(
      versions,
      versions.toSorted((one, other) => one - other),
    );
    assert.equal(new Set(versions).size, versions.length);
    for (const { object } of lines) {
      assert.deepEqual([object.apiVersion, object.kind], [`${group}/v1`, 'AzureIdentity']);
    }
    // The same again from the middle version.
    const rest = `${ids}?watch=true&resourceVersion=${versions[2] ?? ''}`;
    const again = await take(api(), rest, 2);
    assert.deepEqual(again.map(renderLine), ['ADDED between', 'DELETED before']);
  });

  it('a watch of a selection reports objects that leave it as deleted, that enter it as added', async () => {
    const { pods } = await namespace('transitions');
    const app = { namespace: 'transitions', name: 'app' };
    const { metadata } = await api().expect('GET', pods);
    const selector = query({ fieldSelector: 'spec.nodeName=node-a,status.phase!=Failed' });
    const path = `${pods}?watch=1&resourceVersion=${metadata.resourceVersion}&${selector}`;
    const lines = await take(api(), path, 5, async () => {
      await runPod(api(), { ...app, name: 'elsewhere', node: 'node-b', ip: '10.2.0.1' });
      await runPod(api(), { ...app, node: 'node-a', ip: '10.1.0.1' });
      await setPodStatus(api(), app, { phase: 'Failed' });
      await setPodStatus(api(), app, { reason: 'Evicted' });
      await setPodStatus(api(), app, { phase: 'Running' });
      await setPodStatus(api(), app, { phase: 'Failed' });
    });
    assert.deepEqual(lines.map(renderLine), [
      ...['ADDED app', 'MODIFIED app', 'DELETED app', 'ADDED app', 'DELETED app'],
    ]);
    const [, , left, entered] = lines;
    // An object that left is shown as it last matched, with the version of the change that removed
    // it.
    assert.match(JSON.stringify(left?.object.status), /"phase":"Running"/);
    const versions = [left, entered].map((line) => Number(line?.object.metadata.resourceVersion));
    assert.ok((versions[0] ?? 0) < (versions[1] ?? 0));
  });

  it('a watch ends after the requested time, with a bookmark if requested', async () => {
    const { pods } = await namespace('bookmarks');
    const { metadata } = await api().expect('GET', pods);
    const path = `${pods}?watch=1&resourceVersion=${metadata.resourceVersion}&timeoutSeconds=4`;
    const startedMs = performance.now();
    const [marked, unmarked] = await Promise.all([
      take(api(), `${path}&allowWatchBookmarks=true`, Infinity, async () => {
        await api().expect('POST', pods, pod('app'));
      }),
      take(api(), path, Infinity),
    ]);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs > 3500 && tookMs < 8000, `${tookMs} ms`);
    assert.deepEqual(unmarked.map(renderLine), ['ADDED app']);
    const last = marked.at(-1);
    assert.ok(last?.type === 'BOOKMARK' && marked[0]?.type === 'ADDED');
    const { kind, apiVersion, metadata: mark } = last.object;
    assert.deepEqual([kind, apiVersion], ['Pod', 'v1']);
    assert.ok(
      Number(mark.resourceVersion) >= Number(marked[0].object.metadata.resourceVersion),
      'the bookmark is older than what came before it',
    );
    const resumed = `${pods}?watch=1&resourceVersion=${mark.resourceVersion}`;
    const lines = await take(api(), resumed, 1, async () => {
      await api().expect('POST', pods, pod('next'));
    });
    assert.deepEqual(lines.map(renderLine), ['ADDED next']);
  });

  it('a streaming list is the existing objects, then a bookmark that marks their end', async () => {
    const { ids } = await namespace('streaming');
    await api().expect('POST', ids, identity('a'));
    await api().expect('POST', ids, identity('b'));
    const asked = query({
      watch: 'true',
      allowWatchBookmarks: 'true',
      sendInitialEvents: 'true',
      resourceVersionMatch: 'NotOlderThan',
    });
    const lines = await take(api(), `${ids}?${asked}`, 3);
    assert.deepEqual(lines.map(renderLine), ['ADDED a', 'ADDED b', 'BOOKMARK ']);
    assert.deepEqual(lines[2]?.object.metadata['annotations'], {
      'k8s.io/initial-events-end': 'true',
    });
  });

  it('a watch from an invalid version is a server error', async () => {
    const { pods } = await namespace('bad-watches');
    const { status, body } = await api().request('GET', `${pods}?watch=1&resourceVersion=x`);
    assert.equal(status, 500);
    assert.match(body.message ?? '', /^resourceVersion: Invalid value: "x": /);
  });

  it('a watch from a future version stays silent', async () => {
    const { pods } = await namespace('future');
    const { resourceVersion } = (await api().expect('GET', pods)).metadata;
    const path = `${pods}?watch=1&resourceVersion=${Number(resourceVersion) + 1_000_000}`;
    const asked = `${path}&allowWatchBookmarks=true&timeoutSeconds=3`;
    const lines = await take(api(), asked, Infinity, async () => {
      await api().expect('POST', pods, pod('app'));
    });
    assert.deepEqual(lines, []);
  });

  it('versions older than the history are answered with Gone: pages as a status, watches as an event', async () => {
    const { ids } = await namespace('gone');
    await api().expect('POST', ids, identity('a'));
    await api().expect('POST', ids, identity('b'));
    const page = await api().expect('GET', `${ids}?limit=1`);
    await server().forgetHistory();
    assertRefused(await api().request('GET', nextPage(ids, page)), 410, 'Expired', {
      message: /^The provided continue parameter is too old to display a consistent list result\./,
    });
    const { resourceVersion } = page.metadata;
    const lines = await take(api(), `${ids}?watch=1&resourceVersion=${resourceVersion}`, Infinity);
    assert.deepEqual(
      lines.map(({ type }) => type),
      ['ERROR'],
    );
    const { message, ...status } = lines[0]?.object ?? {};
    assert.match(
      String(message),
      new RegExp(`^too old resource version: ${resourceVersion} \\(\\d+\\)$`),
    );
    assert.deepEqual(status, {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      reason: 'Expired',
      code: 410,
    });
    const { metadata } = await api().expect('GET', ids);
    const fresh = `${ids}?watch=1&resourceVersion=${metadata.resourceVersion}`;
    const after = await take(api(), fresh, 1, async () => {
      await api().expect('POST', ids, identity('c'));
    });
    assert.deepEqual(after.map(renderLine), ['ADDED c']);
  });

  it('a server that was restored has older objects and versions, and no event for a later version', async () => {
    const { ids } = await namespace('restored');
    await api().expect('POST', ids, identity('kept'));
    const restore = await server().backUp();
    // The restored server makes versions of its own, which must not reach these.
    for (let count = 0; count < 300; count += 1) {
      await api().expect('POST', ids, identity(`lost-${count}`));
    }
    const before = await api().expect('GET', ids);
    await restore();
    const after = await api().expect('GET', ids);
    assert.deepEqual(namesOf(after), ['kept']);
    const [lost, restored] = [before, after].map(({ metadata }) =>
      Number(metadata.resourceVersion),
    );
    assert.ok(restored !== undefined && lost !== undefined && restored < lost);
    const from = { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds: '3' };
    const create = async (name: string): Promise<void> =>
      void (await api().expect('POST', ids, identity(name)));
    const ahead = query({ ...from, resourceVersion: String(lost) });
    assert.deepEqual(await take(api(), `${ids}?${ahead}`, Infinity, () => create('next')), []);
    const current = query({ ...from, resourceVersion: String(restored) });
    const lines = await take(api(), `${ids}?${current}`, 2, () => create('last'));
    assert.deepEqual(lines.map(renderLine), ['ADDED next', 'ADDED last']);
  });

  it('an unknown user and a user without permission are refused differently', async () => {
    const { pods } = await namespace('access');
    assertSays(await server().askUnknown(pods), {
      status: 401,
      reason: 'Unauthorized',
      message: 'Unauthorized',
    });
    assertRefused(await server().askForbidden(pods), 403, 'Forbidden', { message: /./ });
  });

  it('a user with too many requests gets a time to retry', async () => {
    const { ids } = await namespace('throttled');
    await using throttled = await server().throttle();
    await using somebody = openApi(throttled.access);
    const { status, headers, body } = await somebody.request('GET', ids);
    assert.deepEqual([status, headers['retry-after']], [429, '1']);
    // Plain text, not a Status.
    assert.equal(body.message, 'Too many requests, please try again later.\n');
  });

  it('a token of a service account verifies, and contains the requested claims', async () => {
    await namespace('tokens');
    const wish = { namespace: 'tokens', name: 'app', node: 'node-a', ip: '10.1.0.1' };
    const { metadata } = await runPod(api(), wish);
    const account = await api().expect('GET', '/api/v1/namespaces/tokens/serviceaccounts/default');
    const boundObjectRef = { kind: 'Pod', apiVersion: 'v1', name: 'app', uid: metadata.uid };
    const path = '/api/v1/namespaces/tokens/serviceaccounts/default/token';
    const spec = { audiences: ['api://exchange'], expirationSeconds: 1200, boundObjectRef };
    const { status, body } = await api().request('POST', path, tokenRequest(spec));
    assert.equal(status, 201);
    assert.deepEqual([body.kind, body.apiVersion], ['TokenRequest', 'authentication.k8s.io/v1']);
    assert.deepEqual([body.metadata.name, body.metadata.namespace], ['default', 'tokens']);
    assert.deepEqual(body['spec'], spec);
    const made = body.status as { readonly token: string; readonly expirationTimestamp: string };
    const keys = await api().expect('GET', '/openid/v1/jwks', undefined, anyType);
    const { header, claims } = verifyToken(made.token, keys['keys'] as readonly SigningKey[]);
    assert.deepEqual(Object.keys(header).sort(), ['alg', 'kid']);
    const { iss, exp, iat, nbf, jti, ...rest } = claims;
    const document = await api().expect('GET', '/.well-known/openid-configuration');
    assert.equal(iss, document['issuer']);
    assert.deepEqual([Number(exp) - Number(iat), nbf], [1200, iat]);
    assert.equal(Date.parse(made.expirationTimestamp), Number(exp) * 1000);
    assert.match(String(jti), /^[\da-f-]{36}$/);
    assert.deepEqual(rest, {
      aud: ['api://exchange'],
      'kubernetes.io': {
        namespace: 'tokens',
        node: { name: 'node-a' },
        pod: { name: 'app', uid: metadata.uid },
        serviceaccount: { name: 'default', uid: account.metadata.uid },
      },
      sub: 'system:serviceaccount:tokens:default',
    });
    const plain = await api().expect('POST', path, tokenRequest({}));
    const defaults = { audiences: [iss], expirationSeconds: 3600, boundObjectRef: null };
    assert.deepEqual(plain['spec'], defaults);
  });

  it('a token request is refused for invalid fields', async () => {
    await namespace('refused-tokens');
    const wish = { namespace: 'refused-tokens', name: 'app', node: 'node-a', ip: '10.1.0.1' };
    await runPod(api(), wish);
    const accounts = '/api/v1/namespaces/refused-tokens/serviceaccounts';
    await api().expect('POST', accounts, { metadata: { name: 'other' } });
    const ask = (account: string, spec: object, name?: string): Promise<Answer> =>
      api().request('POST', `${accounts}/${account}/token`, {
        ...tokenRequest(spec),
        ...(name === undefined ? {} : { metadata: { name } }),
      });
    const bound = (over: object): object => ({
      boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'app', ...over },
    });
    assertSays(await ask('none', { expirationSeconds: 1 }), {
      status: 404,
      reason: 'NotFound',
      message: 'serviceaccounts "none" not found',
      details: { name: 'none', kind: 'serviceaccounts' },
    });
    assertSays(await ask('default', bound({ name: 'none' })), {
      status: 404,
      reason: 'NotFound',
      message: 'pods "none" not found',
      details: { name: 'none', kind: 'pods' },
    });
    const uid = '00000000-0000-0000-0000-000000000000';
    assertSays(await ask('default', bound({ uid })), {
      status: 409,
      reason: 'Conflict',
      details: { name: 'app', kind: 'Pod' },
      message:
        `Operation cannot be fulfilled on Pod "app": the UID in the bound object reference (${uid}) ` +
        'does not match the UID in record. The object might have been deleted and then recreated',
    });
    assertRefused(await ask('other', bound({})), 400, 'BadRequest', {
      message: /^cannot bind token for serviceaccount "other" to pod running with different/,
    });
    assertSays(await ask('default', bound({ kind: 'None' })), {
      status: 400,
      reason: 'BadRequest',
      message: 'cannot bind token to object of type /v1, Kind=None',
    });
    assertRefused(await ask('default', { expirationSeconds: 'x' }), 400, 'BadRequest', {
      message: /^TokenRequest in version "v1" cannot be handled as a TokenRequest: /,
    });
    const invalid = (field: string, value: string, why: string): Partial<Said> => ({
      details: {
        group: 'authentication.k8s.io',
        kind: 'TokenRequest',
        causes: [
          { reason: 'FieldValueInvalid', message: `Invalid value: ${value}: ${why}`, field },
        ],
      },
    });
    const tooShort = invalid(
      'spec.expirationSeconds',
      '599',
      'may not specify a duration less than 10 minutes',
    );
    assertRefused(
      // This check comes before the pod is looked up.
      await ask('default', { ...bound({ name: 'none' }), expirationSeconds: 599 }),
      ...[422, 'Invalid'],
      {
        message: /^TokenRequest\.authentication\.k8s\.io "" is invalid: spec\.expirationSeconds: /,
        ...tooShort,
      },
    );
    assertRefused(await ask('default', { expirationSeconds: 2 ** 33 }), 422, 'Invalid', {
      message: /: may not specify a duration larger than 2\^32 seconds$/,
    });
    assertRefused(await ask('default', {}, 'misnamed'), 422, 'Invalid', {
      message: /metadata\.name: Invalid value: "misnamed": must match the service account name/,
    });
    assertSays(await api().request('GET', `${accounts}/default/token`), notAllowed);
  });

  it('a user can request its own identity', async () => {
    const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
    const { status, body } = await api().request('POST', path, review);
    assert.equal(status, 201);
    assert.deepEqual(
      [body.kind, body.apiVersion, Object.keys(body.metadata)],
      ['SelfSubjectReview', 'authentication.k8s.io/v1', ['creationTimestamp']],
    );
    const { userInfo } = body.status as { userInfo: { username: string; groups: string[] } };
    assert.notEqual(userInfo.username, '');
    assert.ok(userInfo.groups.includes('system:authenticated'));
    assertSays(await api().request('GET', path), notAllowed);
  });

  it('the documents of the issuer are available to any verifier', async () => {
    const { status, headers, body } = await api().request(
      'GET',
      '/openid/v1/jwks',
      undefined,
      anyType,
    );
    assert.deepEqual([status, headers['content-type']], [200, 'application/jwk-set+json']);
    const [key] = body['keys'] as readonly object[];
    assert.deepEqual(Object.keys(key ?? {}).sort(), ['alg', 'e', 'kid', 'kty', 'n', 'use']);
    const document = await api().expect('GET', '/.well-known/openid-configuration');
    const issuer = String(document['issuer']);
    assert.match(issuer, /^https:/);
    assert.deepEqual(document, {
      issuer,
      jwks_uri: `${issuer}/openid/v1/jwks`,
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256'],
    });
  });
}

/** Compares the complete body of a refusal. */
interface Said {
  readonly status: number;
  readonly reason: string;
  readonly message: string;
  readonly details?: object;
}

const notAllowed: Said = {
  status: 405,
  reason: 'MethodNotAllowed',
  message: 'the server does not allow this method on the requested resource',
  details: {},
};
const anyType = { headers: { accept: '*/*' } };

function assertSays({ status, body }: Answer, { status: code, ...said }: Said): void {
  assert.equal(status, code, body.message ?? '');
  assert.deepEqual(body, {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    ...said,
    code,
  });
}

/** Like {@link assertSays}, for messages that need not match to the letter. */
function assertRefused(
  { status, body }: Answer,
  code: number,
  reason: string,
  said: { readonly message: string | RegExp; readonly details?: object },
  what = '',
): void {
  assert.deepEqual(
    [status, body.kind, body.code, body.reason],
    [code, 'Status', code, reason],
    what,
  );
  if (typeof said.message === 'string') assert.equal(body.message, said.message);
  else assert.match(body.message ?? '', said.message);
  if (said.details !== undefined) assert.deepEqual(body['details'], said.details);
}

/** The first lines of a watch, or all of them; `act` runs when it is open. */
async function take(
  api: Api,
  path: string,
  count: number,
  act: () => Promise<void> = async () => undefined,
): Promise<readonly WatchLine[]> {
  const lines: WatchLine[] = [];
  let acting: Promise<void> | undefined;
  const onOpen = (): void => {
    acting = act();
    // Its failure is reported below, after the watch has ended.
    acting.catch(() => undefined);
  };
  for await (const line of api.watch(path, { onOpen })) {
    lines.push(line);
    if (lines.length >= count) break;
  }
  await acting;
  return lines;
}

function renderLine({ type, object }: WatchLine): string {
  // A bookmark has no name.
  return [type, object.metadata.name].join(' ');
}

function namesOf({ items }: KubeBody): readonly string[] {
  return (items ?? []).map(({ metadata }) => metadata.name);
}

function nextPage(path: string, { metadata }: KubeBody): string {
  return `${path}?${query({ limit: '2', continue: metadata.continue ?? '' })}`;
}

function query(parameters: Readonly<Record<string, string>>): string {
  return new URLSearchParams(parameters).toString();
}

function tokenRequest(spec: object): object {
  return { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
}

function identity(name: string): object {
  const spec = { type: 0, adResourceID: 'a' };
  return { apiVersion: `${group}/v1`, kind: 'AzureIdentity', metadata: { name }, spec };
}

function pod(name: string, labels: Readonly<Record<string, string>> = { app: 'x' }): object {
  return {
    metadata: { name, labels },
    spec: { nodeName: 'node-a', containers: [{ name: 'app', image: 'app' }] },
  };
}
