/**
 * The agent's reflector on every server that we call a Kubernetes API, over a network that fails.
 */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../../src/base/time/clock.ts';
import type { Identity } from '../../../src/cache/index/objects.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { openKubeClient } from '../../../src/nmi/kube/api/client.ts';
import { parseIdentity } from '../../../src/nmi/kube/watch/parse.ts';
import { openReflector, type Reflector } from '../../../src/nmi/kube/watch/reflector.ts';
import { keptLog, MapStore, quick, temporaryDir } from '../../unit/nmi/kube/kube-test-bed.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import type { Api, ApiAccess } from './api.ts';
import { identitiesIn, type ContractServer } from './contract.ts';
import { openFaultProxy, type FaultProxy } from './fault-proxy.ts';
import { renderKubeconfig } from './kubeconfig.ts';

/** Short, but longer than any event takes. */
const silenceMs = 1500;

interface Fixture extends AsyncDisposable {
  readonly network: FaultProxy;
  readonly reflector: Reflector;
  /** Creates an identity, or deletes it. */
  create(name: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Resolves when the store contains exactly these. */
  holds(...names: readonly string[]): Promise<void>;
  /** The contents of the store after each of its lists. */
  lists(): readonly (readonly string[])[];
}

interface FixtureOptions {
  /** Default: the user who may do everything. For another the first list is not awaited. */
  readonly access?: ApiAccess;
  /** Data of the server arrives in pieces of this many bytes. */
  readonly pieceBytes?: number;
}

/** Registers the tests; each works in a separate namespace. */
export function reflectorTests(server: () => ContractServer): void {
  async function open(
    namespace: string,
    listBy: 'stream' | 'pages' = 'stream',
    options: FixtureOptions = {},
  ): Promise<Fixture> {
    await using opening = new AsyncDisposableStack();
    await server().createNamespace(namespace);
    const { api } = server();
    const { access = server().access, pieceBytes } = options;
    const path = identitiesIn(namespace);
    const network = opening.use(await openFaultProxy(access.url, { pieceBytes }));
    const folder = opening.use(await temporaryDir());
    const kubeconfigPath = join(folder.path, 'config');
    await writeFile(kubeconfigPath, renderKubeconfig({ ...access, url: network.url }));
    const client = opening.use(await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' }));
    const store = new MapStore<Identity>();
    for (const name of ['a', 'b', 'c', 'd', 'e']) await createIdentity(api, path, name);
    const reflector = opening.use(
      openReflector({
        name: 'identities',
        path,
        parse: parseIdentity,
        store,
        client,
        clock: systemClock,
        random: Math.random,
        log: keptLog(),
        pageSize: 2,
        listsBy: listBy,
        timing: { ...quick, silenceMs },
      }),
    );
    if (options.access === undefined) await reflector.whenSynced();
    const owned = opening.move();
    const held = (): string => store.names().join(' ');
    return {
      network,
      reflector,
      create: (name) => createIdentity(api, path, name),
      async remove(name) {
        await api.expect('DELETE', `${path}/${name}`);
      },
      async holds(...names) {
        const wanted = names.map((name) => `${namespace}/${name}`).join(' ');
        await store.until(wanted, () => held() === wanted);
      },
      lists: () => store.replaced.map((items) => items.map(({ name }) => name)),
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  }

  for (const how of ['stream', 'pages'] as const) {
    it(`a reflector lists by ${how}, and follows`, async () => {
      await using fixture = await open(`list-by-${how}`, how);
      await fixture.holds('a', 'b', 'c', 'd', 'e');
      await fixture.create('f');
      await fixture.remove('a');
      await fixture.holds('b', 'c', 'd', 'e', 'f');
      assert.equal(fixture.lists().length, 1);
    });
  }

  it('a reflector continues where it was after its connections are cut, without another list', async () => {
    await using fixture = await open('cuts');
    for (let round = 0; round < 20; round += 1) {
      const made = fixture.create(`round-${round}`);
      await eventually(() => assert.ok(fixture.network.connections > 0));
      fixture.network.cut();
      await made;
      await fixture.holds('a', 'b', 'c', 'd', 'e', `round-${round}`);
      await fixture.remove(`round-${round}`);
    }
    await fixture.holds('a', 'b', 'c', 'd', 'e');
    const { errorsByKind: errors, relists } = fixture.reflector.stats();
    assert.equal(relists, 0);
    assert.ok(errors.outage >= 20, `${errors.outage} cuts were noticed`);
    assert.ok(fixture.network.connections <= 2, `${fixture.network.connections} connections`);
  });

  it('a reflector reads lists and events that arrive slowly and in pieces', async () => {
    await using fixture = await open('pieces', 'stream', { pieceBytes: 7 });
    await fixture.create('f');
    await fixture.remove('a');
    await fixture.holds('b', 'c', 'd', 'e', 'f');
    const { errorsByKind: errors, relists } = fixture.reflector.stats();
    assert.deepEqual([relists, errors.outage, errors.refusal], [0, 0, 0]);
    assert.equal(fixture.network.accepted, 1);
  });

  it('a throttled reflector waits for the requested time, and then continues', async () => {
    const throttled = await server().throttle();
    await using _end = throttled;
    await using fixture = await open('waiting', 'stream', { access: throttled.access });
    await eventually(() => assert.ok(fixture.reflector.stats().errorsByKind.refusal >= 1));
    const { refusal: before } = fixture.reflector.stats().errorsByKind;
    await delay(2500);
    const attempts = fixture.reflector.stats().errorsByKind.refusal - before;
    // At most one per second, whatever its back-off would be otherwise.
    assert.ok(attempts >= 1 && attempts <= 3, `${attempts} attempts in 2.5 s`);
    assert.equal(fixture.reflector.synced, false);
    await throttled[Symbol.asyncDispose]();
    await fixture.holds('a', 'b', 'c', 'd', 'e');
  });

  it('a reflector leaves a connection that has gone silent', async () => {
    await using fixture = await open('silence');
    fixture.network.freeze();
    using time = new OwnTime();
    await fixture.create('f');
    await fixture.holds('a', 'b', 'c', 'd', 'e', 'f');
    const tookMs = time.nowMs();
    assert.ok(tookMs < silenceMs + 2000, `${tookMs} ms`);
    assert.equal(fixture.reflector.stats().restarts, 1);
  });

  it('a reflector lists again when its version is too old, and its store is never empty', async () => {
    await using fixture = await open('forgotten');
    await fixture.remove('a');
    await fixture.holds('b', 'c', 'd', 'e');
    // A starting server answers early requests with a `Retry-After` of 5 s.
    await fixture.network.stop();
    await server().forgetHistory();
    await fixture.create('f');
    await fixture.network.start();
    await fixture.holds('b', 'c', 'd', 'e', 'f');
    const { errorsByKind: errors, relists } = fixture.reflector.stats();
    assert.ok(errors.expiry >= 1 && relists >= 1, `${errors.expiry} gone, ${relists} lists`);
    for (const list of fixture.lists()) assert.ok(list.length >= 4, list.join(' '));
  });
}

async function createIdentity(api: Api, path: string, name: string): Promise<void> {
  await api.expect('POST', path, {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentity',
    metadata: { name },
    spec: { type: 0, adResourceID: name },
  });
}
