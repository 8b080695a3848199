/**
 * Mistakes on a real API server, beside the process that writes conditions: `explain`, `analyze` and the
 * status of the object at fault name the same code, and the status of other objects blames nothing.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import {
  openConditionsProcess,
  setNodes,
  type ConditionsProcess,
} from '../cluster/support/conditions-process.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { readyIn } from '../support/ready-condition.ts';
import {
  agent,
  binding,
  clientId,
  exception,
  grant,
  identity,
  mistakes,
  pod,
} from './support/mistakes.ts';
import { clearObjects, putObjects, secretsRole } from './support/put-objects.ts';
import { runOn, type RealMachine } from './support/real-kubectl.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const tenant = '7e570000-1ab0-4000-8000-000000000001';
const stranger = '0f5a2f0e-3a53-4d1c-9a5c-5b8d2f6a7c11';
const storage =
  '/subscriptions/7e570000-1ab0-4000-8000-000000000002/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/s';

interface Named {
  /** Objects; by default those of the mistake of that name. */
  readonly objects?: string;
  /** Of etcd: what the definitions would refuse today. */
  readonly stored?: {
    readonly kind: 'azureidentities' | 'azureidentitybindings';
    readonly spec: object;
  };
  readonly code: string;
  /** The object whose status names it. */
  readonly at?: 'azureidentities/orders' | 'azureidentitybindings/orders';
  readonly words?: readonly string[];
  readonly laterMs?: number;
}

const rest = identity() + binding() + agent();
const secret = `type: 1, clientID: ${clientId}, tenantID: ${tenant}, clientPassword: { name: sp, namespace: shop }`;
const enforcing = agent({ args: '--identity-owners=enforce' });

const named: Readonly<Record<string, Named>> = {
  'label-on-deployment': { code: 'label_on_owner' },
  'label-slip': { code: 'binding_missing' },
  'binding-missing': { code: 'binding_missing' },
  'binding-in-other-namespace': { code: 'binding_missing' },
  'identity-missing': { code: 'identity_missing', at: 'azureidentitybindings/orders' },
  'client-id-wrong': { code: 'selector_not_bound' },
  'secret missing': {
    objects: pod() + identity('orders', secret) + binding() + agent(),
    code: 'credential_missing',
    at: 'azureidentities/orders',
  },
  'identity without a grant': {
    objects: pod() + identity('orders', `type: 0, clientID: ${stranger}`) + binding() + enforcing,
    code: 'identity_not_owned',
    at: 'azureidentities/orders',
  },
  'network-policy': { code: 'network_policy' },
  'node-without-agent': { code: 'agent_missing' },
  'agent-not-ready': { code: 'agent_not_ready' },
  'exception-before-binding': { code: 'exception_before_binding' },
  'address-of-two-pods': { code: 'pod_ambiguous' },
  'label-key-letter-case': { code: 'no_binding_label' },
  'label-empty': { code: 'no_binding_label' },
  'identity-in-other-namespace': { code: 'identity_missing', at: 'azureidentitybindings/orders' },
  'identity-name-slip': { code: 'identity_missing', at: 'azureidentitybindings/orders' },
  'identity-without-ids': { code: 'identity_invalid', at: 'azureidentities/orders' },
  'resource id of another provider': {
    objects: pod() + rest,
    stored: { kind: 'azureidentities', spec: { clientID: undefined, resourceID: storage } },
    code: 'identity_invalid',
    at: 'azureidentities/orders',
  },
  'selector that no label can have': {
    objects: pod() + rest,
    stored: { kind: 'azureidentitybindings', spec: { selector: '-' } },
    code: 'selector_unusable',
    at: 'azureidentitybindings/orders',
    words: ['analyze'],
  },
  'two-identities-strict': { code: 'identity_ambiguous' },
  'service-account-constraint': { code: 'binding_missing' },
  'exception-in-other-namespace': { code: 'exception_elsewhere' },
  'pod for Windows': {
    objects: pod({ spec: ', os: { name: windows }' }) + rest,
    code: 'pod_on_windows',
  },
  'exception for everything': {
    objects:
      ['a', 'b', 'c']
        .map((name, at) => pod({ name, labels: 'app: all', ip: `10.244.1.${20 + at}` }))
        .join('') +
      pod({ labels: 'aadpodidbinding: orders, app: all' }) +
      exception('app: all') +
      rest,
    code: 'exception_before_binding',
  },
  'binding that is on its way': {
    objects: pod() + identity() + agent(),
    code: 'binding_pending',
    laterMs: 0,
  },
};

it('the mistakes of the page about troubleshooting are among these', async () => {
  const page = await readFile(join(deploy, '../docs/troubleshooting.md'), 'utf8');
  const [, rows = ''] = /\| code \| mistake \|\n.*\n((?:\|.*\n)+)/.exec(page) ?? [];
  const codes = [...rows.matchAll(/^\| `(\w+)`/gm)].map(([, code]) => code);
  const tested = new Set(Object.values(named).map(({ code }) => code));
  assert.equal(codes.length, 12);
  assert.deepEqual(
    codes.filter((code) => code === undefined || !tested.has(code)),
    [],
  );
});

describeOnNewestVersion('a mistake is named alike', (cluster) => {
  let machine: RealMachine;
  let conditions: ConditionsProcess;

  before(async () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    const { kubectl } = binaries;
    machine = { kubectl, kubeconfig: adminKubeconfig, home: folder, api: cluster().admin };
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(await readFile(join(deploy, 'crds.yaml'), 'utf8'));
    await eventually(async () => cluster().apply(await readFile(join(deploy, 'nmi.yaml'), 'utf8')));
    await setNodes(cluster(), 1);
    await cluster().apply(grant);
    await cluster().apply(secretsRole);
    conditions = await openConditionsProcess(cluster(), { 'identity-owners': 'enforce' });
  });
  after(() => conditions[Symbol.asyncDispose]());

  const codesOf = async (as: RealMachine, words: readonly string[]) => {
    const { stdout, stderr } = await runOn(as, [...words, '-n', 'shop', '-o', 'json']);
    assert.notEqual(stdout, '', stderr);
    const { findings, verdict } = JSON.parse(stdout) as {
      findings: readonly { code: string; severity: string }[];
      verdict: string | undefined;
    };
    if (findings.some(({ severity }) => severity === 'error')) assert.notEqual(verdict, 'granted');
    return findings.map(({ code }) => code);
  };
  const readyOf = async (path: string): Promise<string | undefined> => {
    const at = `/apis/aadpodidentity.k8s.io/v1/namespaces/shop/${path}`;
    const { status, body } = await cluster().admin.request('GET', at);
    return status === 404 ? undefined : readyIn(body['status']);
  };

  /** Without an object at fault, that none is blamed; else that the status of that one names it. */
  const untilStatus = async (at: Named['at'], code: string) => {
    const paths = ['azureidentities/orders', 'azureidentitybindings/orders'];
    if (at === undefined) {
      for (const path of paths) assert.doesNotMatch((await readyOf(path)) ?? '', /False/);
      return;
    }
    await eventually(async () => {
      const [identityReady = 'True ok', bindingReady] = await Promise.all(paths.map(readyOf));
      assert.equal(identityReady, at === paths[0] ? `False ${code}` : 'True ok');
      // A binding is not ready if its identity is not.
      assert.equal(bindingReady, `False ${code}`);
    }, 30_000);
  };

  for (const [name, { objects, stored, code, at, words, laterMs }] of Object.entries(named)) {
    it(`${name}: ${code}`, async () => {
      await clearObjects(cluster());
      const known = objects ?? mistakes.find((each) => each.name === name)?.objects;
      assert.ok(known !== undefined);
      await putObjects(cluster(), known);
      if (stored !== undefined) {
        const kind = `aadpodidentity.k8s.io/${stored.kind}`;
        await cluster().copy(kind, 'shop', 'orders', [
          { name: 'orders', spec: { ...stored.spec } },
        ]);
      }
      await untilStatus(at, code);
      const as = { ...machine, ...(laterMs === undefined ? {} : { laterMs }) };
      const explained = await codesOf(as, words ?? ['explain', 'pod', 'web']);
      assert.ok(explained.includes(code), `explain: ${explained.join(' ')}`);
      const analyzed = await codesOf(as, ['analyze']);
      assert.ok(analyzed.includes(code), `analyze: ${analyzed.join(' ')}`);
    });
  }
});
