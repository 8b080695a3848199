/**
 * Status conditions on real API servers, with the permissions of the manifests: what kubectl shows,
 * and definitions without conditions.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { readyIn } from '../support/ready-condition.ts';
import { openConditionsProcess, setNodes } from './support/conditions-process.ts';
import { readOldDefinitions } from './support/go-module.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const read = (path: string): Promise<string> => readFile(join(deploy, path), 'utf8');
const root = '/apis/aadpodidentity.k8s.io/v1/namespaces/shop';
const clientID = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const oldMessage =
  'custom resource definition has no status conditions, apply crds.yaml of this version';
const mergePatch = { contentType: 'application/merge-patch+json' };
describeOnNewestVersion('status conditions', (cluster) => {
  const open = () => openConditionsProcess(cluster());
  const put = (kind: 'AzureIdentity' | 'AzureIdentityBinding', name: string, spec: object) => {
    const plural = kind === 'AzureIdentity' ? 'azureidentities' : 'azureidentitybindings';
    const apiVersion = 'aadpodidentity.k8s.io/v1';
    const object = { apiVersion, kind, metadata: { name }, spec };
    return cluster().admin.expect('POST', `${root}/${plural}`, object);
  };
  const statusOf = async (path: string) =>
    (await cluster().admin.expect('GET', `${root}/${path}`)).status;
  const untilReady = (path: string, expected: string) =>
    eventually(async () => assert.equal(readyIn(await statusOf(path)), expected), 30_000);
  const applyDefinitions = async (text: string) => {
    await cluster().apply(text);
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
  };

  before(async () => {
    await applyDefinitions(readOldDefinitions());
    await eventually(async () => cluster().apply(await read('nmi.yaml')));
    await setNodes(cluster(), 1);
    await cluster().createNamespace('shop');
    await put('AzureIdentity', 'cart', { type: 0, clientID });
    await put('AzureIdentityBinding', 'cart', { azureIdentity: 'cart', selector: 'cart' });
    await put('AzureIdentityBinding', 'wrong', { azureIdentity: 'Cart', selector: '-' });
  });

  it('are not written if the definitions have none, which is logged once', async () => {
    const withoutConditions = (await read('crds.yaml')).replaceAll(
      /^ {16}conditions:\n(?: {17,}.*\n)+/gm,
      '',
    );
    assert.doesNotMatch(withoutConditions, /lastTransitionTime/);
    for (const definitions of [undefined, withoutConditions]) {
      if (definitions !== undefined) await applyDefinitions(definitions);
      await using writer = await open();
      const said = () => writer.lines.filter((line) => line.includes(oldMessage)).length;
      await eventually(() => assert.equal(said(), 2, writer.lines.join('')), 30_000);
      await delay(2_000);
      assert.equal(said(), 2, 'one line per kind');
    }
    for (const path of ['azureidentities/cart', 'azureidentitybindings/cart']) {
      assert.deepEqual((await statusOf(path)) ?? {}, {});
    }
    await applyDefinitions(await read('crds.yaml'));
    // The server uses the new definitions after a moment.
    await eventually(async () => {
      const conditions = [
        {
          type: 'Ready',
          status: 'True',
          reason: 'ok',
          message: '',
          lastTransitionTime: '2026-01-01T00:00:00Z',
        },
      ];
      for (const path of ['azureidentities/cart', 'azureidentitybindings/cart']) {
        const at = `${root}/${path}/status?dryRun=All`;
        const { status } = await cluster().admin.expect(
          'PATCH',
          at,
          { status: { conditions } },
          mergePatch,
        );
        assert.equal(readyIn(status), 'True ok');
      }
    }, 30_000);
  });

  it('are what kubectl shows and waits for, and follow the objects', async () => {
    await using _ = await open();
    await cluster().kubectl([
      'wait',
      '--for=condition=Ready',
      'azidb/cart',
      '--namespace=shop',
      '--timeout=30s',
    ]);
    await untilReady('azureidentities/cart', 'True ok');
    await put('AzureIdentityBinding', 'till', { azureIdentity: 'till', selector: 'till' });
    await untilReady('azureidentitybindings/till', 'False identity_missing');
    const shown = (await cluster().kubectl(['get', 'azidb', '--namespace=shop'])).split('\n');
    assert.match(
      shown.find((row) => row.startsWith('till')) ?? '',
      /^till +till +till +False +identity_missing +\S+ +Namespace shop has no AzureIdentity till\. Create it: kubectl nmi identity add till -n shop --client-id ID --apply; or correct spec\.azureIdentity\.$/,
    );
    assert.match(
      shown.find((row) => row.startsWith('cart')) ?? '',
      /^cart +cart +cart +True +ok +\S+ *$/,
    );
    // Stored before the definitions had rules; the rules would refuse it now.
    await untilReady('azureidentitybindings/wrong', 'False selector_unusable');

    const spec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };
    await put('AzureIdentity', 'till', spec);
    // No role grants the permission to read Secrets.
    await untilReady('azureidentities/till', 'False credential_invalid');
    await untilReady('azureidentitybindings/till', 'False credential_invalid');
    const status = JSON.stringify(await statusOf('azureidentities/till'));
    assert.match(status, /"message":"The agent may not read Secret shop\/sp: its service account/);
    const change = { spec: { type: 0 } };
    await cluster().admin.expect('PATCH', `${root}/azureidentities/till`, change, mergePatch);
    await untilReady('azureidentities/till', 'True ok');
    const { metadata, status: last } = await cluster().admin.expect(
      'GET',
      `${root}/azureidentities/till`,
    );
    assert.equal(metadata['generation'], 2);
    const { conditions } = last as { conditions: readonly { observedGeneration: number }[] };
    assert.deepEqual(
      conditions.map(({ observedGeneration }) => observedGeneration),
      [2, 2, 2],
    );
  });

  it('of other programs stay, also under a definition whose list is no map', async () => {
    const conditions = [
      {
        type: 'example.com/Synced',
        status: 'False',
        reason: 'Waiting',
        message: 'of another program',
        observedGeneration: 1,
        lastTransitionTime: '2026-01-01T00:00:00Z',
      },
    ];
    const path = 'azureidentitybindings/shared';
    const typesOf = async () => {
      const { conditions: list } = (await statusOf(path)) as { conditions: { type: string }[] };
      assert.deepEqual(
        list.filter(({ type }) => type.startsWith('example.com/')),
        conditions,
      );
      return list.map(({ type }) => type).toSorted();
    };
    await put('AzureIdentityBinding', 'shared', { azureIdentity: 'cart', selector: 'shared' });
    const status = { status: { conditions } };
    await cluster().admin.expect('PATCH', `${root}/${path}/status`, status, mergePatch);
    const all = ['IdentityFound', 'Ready', 'SelectorUsable', 'example.com/Synced'];
    const definitions = await read('crds.yaml');
    const withoutMaps = definitions.replaceAll(
      /^ +x-kubernetes-list-(?:type|map-keys): .*\n/gm,
      '',
    );
    assert.notEqual(withoutMaps, definitions);
    for (const [text, identity] of [
      [definitions, 'none'],
      [withoutMaps, 'cart'],
    ] as const) {
      await applyDefinitions(text);
      await using writer = await open();
      await untilReady(path, identity === 'none' ? 'True ok' : 'False identity_missing');
      assert.deepEqual(await typesOf(), all);
      const change = { spec: { azureIdentity: identity } };
      await cluster().admin.expect('PATCH', `${root}/${path}`, change, mergePatch);
      await untilReady(path, identity === 'none' ? 'False identity_missing' : 'True ok');
      assert.deepEqual(await typesOf(), all);
      assert.deepEqual([writer.writes()['rejected'], writer.writes()['forbidden']], [0, 0]);
    }
    await applyDefinitions(definitions);
  });
});
