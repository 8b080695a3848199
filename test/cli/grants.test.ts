import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openFakeKube, type FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
  createAzurePodIdentityException,
} from '../../lab/fakes/kube/manifests.ts';
import { runCli } from '../../src/cli/cli.ts';
import { temporaryDir } from '../nmi/kube/kube-test-bed.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

async function cli(args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  let [stdout, stderr] = ['', ''];
  const code = await runCli(['grants', ...args], {
    environment,
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    stop: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

async function grantsOf(fake: FakeKube) {
  await using folder = await temporaryDir();
  const path = join(folder.path, 'config');
  await writeFile(path, fake.kubeconfig());
  return await cli([], { KUBECONFIG: path });
}

function bind(fake: FakeKube, name: string, namespace: string): void {
  fake.apply(createAzureIdentity({ name, namespace, clientId }));
  const binding = { name, namespace, azureIdentity: name, selector: name };
  fake.apply(createAzureIdentityBinding(binding));
}

describe('nmi grants', () => {
  it('prints what the cluster needs, read only with lists', async () => {
    await using fake = await openFakeKube();
    bind(fake, 'till', 'shop');
    fake.apply(createAzureIdentity({ name: 'unbound', namespace: 'shop', clientId }));
    const podLabels = { app: 'addon' };
    const exception = { name: 'x', namespace: 'kube-system', podLabels };
    fake.apply(createAzurePodIdentityException(exception));
    const { code, stdout, stderr } = await grantsOf(fake);
    assert.deepEqual([code, stderr], [0, '1 AzureIdentities without a binding left out\n']);
    assert.match(stdout, /namespaces: \["kube-system"\]\n {2}nodeIdentities: true\n---/);
    assert.ok(stdout.includes(`clientIDs:\n    - "${clientId}"  # AzureIdentity till\n`), stdout);
    assert.ok(fake.requests.every(({ method, url }) => method === 'GET' && !url.includes('watch')));
  });

  it('prints nothing if all is granted, and everything if the kind is not installed', async () => {
    await using fake = await openFakeKube();
    bind(fake, 'till', 'shop');
    fake.apply(createAzureIdentityGrant('all', { namespaces: ['*'], clientIDs: [clientId] }));
    assert.deepEqual(await grantsOf(fake), {
      code: 0,
      stdout: '',
      stderr: 'every identity in use has a grant\n',
    });
    fake.faults.notInstalled.add('azureidentitygrants');
    assert.match((await grantsOf(fake)).stdout, /kind: AzureIdentityGrant/);
  });

  it('fails if it cannot read the objects, with an exit code for the reason', async () => {
    await using fake = await openFakeKube();
    fake.faults.failNext(1, 403, { containing: 'azureidentitybindings' });
    const refused = await grantsOf(fake);
    assert.deepEqual([refused.code, refused.stdout], [69, '']);
    assert.match(refused.stderr, /^nmi grants: /);
    fake.faults.failNext(1, 403, { containing: 'azureidentitygrants' });
    assert.equal((await grantsOf(fake)).code, 69, 'what is granted is not known');
    assert.equal((await cli(['--kubeconfig', '/nowhere'])).code, 78);
    for (const args of [['x'], ['--output=json']]) {
      const { code, stderr } = await cli(args);
      assert.equal(code, 2);
      assert.match(stderr, /unknown (?:word "x"|flag --output); see nmi help grants/);
    }
  });
});
