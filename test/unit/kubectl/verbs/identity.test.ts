import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import type { RawObject } from '../../../../src/kubectl/base/object.ts';
import { createFakeAz, ordersId, tenant } from '../../../kubectl/support/fake-az.ts';
import {
  type Recorded,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  failed,
  kinds,
  ok,
  play,
} from '../../../kubectl/support/recorded-kubectl.ts';

const issuer = ok('{"issuer":"https://oidc.example/1/"}');

function testBedOf(changes = {}, az = createFakeAz()): Recorded {
  return {
    ...boundTestBed(changes),
    other: (program, args) => (program === 'az' ? az.run(args) : issuer),
  };
}

describe('kubectl nmi identity', () => {
  it('needs a verb', async () => {
    const { code, stderr } = await play('identity', testBedOf());
    assert.deepEqual([code, stderr.includes('No verb is given after identity.')], [2, true]);
  });

  for (const [action, example] of [
    ['add', 'add orders --resource-id '],
    ['add', 'add orders --type federated '],
    ['add', 'add agent --type chain '],
    ['list', 'list -A'],
    ['assign', 'assign orders'],
    ['federate', 'federate orders'],
  ] as const) {
    it(`${action} has the example ${example} in its help`, async () => {
      const { stdout } = await play(['identity', action, '--help']);
      const [, examples = ''] = stdout.split('Examples:');
      assert.ok(examples.includes(`  kubectl nmi identity ${example}`), stdout);
    });
  }
});

describe('kubectl nmi identity add', () => {
  it('prints the object', async () => {
    const { stdout } = await play(
      ['identity', 'add', 'new', '--client-id', clientA, '--resource-id', ordersId],
      testBedOf(),
    );
    assert.match(
      stdout,
      /kind: AzureIdentity\nmetadata:\n {2}name: new\n {2}namespace: shop\nspec:\n {2}type: 0\n {2}resourceID: [^\n]+\n {2}clientID: 431054d5/,
    );
    assert.match(
      stdout,
      /# Then bind it: kubectl nmi identity assign new -n shop --context=dev\n$/,
    );
    assert.match(stdout, /^# In context dev, namespace shop:\n/);
  });

  it('needs one id where the node has the identity, since the agent does', async () => {
    const chain = ['--type', 'chain', '--application', clientB, '--tenant-id', tenant];
    for (const more of [[], chain]) {
      const words = ['identity', 'add', 'new', '--resource-id', ordersId, ...more];
      const { code, stdout } = await play(words, testBedOf());
      const { spec } = parse(stdout) as { spec: Record<string, unknown> };
      assert.deepEqual([code, spec['resourceID'], 'clientID' in spec], [0, ordersId, false]);
    }
  });

  it('adds nothing that is there already', async () => {
    const words = ['identity', 'add', 'orders', '--client-id', clientA, '--apply'];
    const { code, stdout, calls } = await play(words, testBedOf());
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /^# AzureIdentity shop\/orders is there already\.\n# Then bind it: /);
  });

  it('names what is missing, with the line that finds it', async () => {
    const wrong: readonly (readonly [words: readonly string[], said: RegExp])[] = [
      [['new'], /client id is missing[^]*az identity list/],
      [
        ['new', '--resource-id', ordersId, '--type', 'federated', '--tenant-id', tenant],
        /client id is missing[^]*az identity show --ids/,
      ],
      [
        ['new', '--resource-id', ordersId, '--client-id', 'mine'],
        /client id is missing or is no GUID/,
      ],
      [['new', '--client-id', 'mine'], /client id is missing or is no GUID[^]*az identity list/],
      [['new', '--resource-id', 'orders'], /orders is no Azure resource id/],
      [['New!', '--client-id', clientA], /cannot be the name of an object/],
      [['new', '--type', 'federated', '--client-id', clientA], /type federated needs a tenant/],
      [
        ['new', '--type', 'secret', '--client-id', clientA, '--tenant-id', tenant],
        /needs a Secret/,
      ],
      [
        ['new', '--client-id', clientA, '--federation', 'binding'],
        /type user-assigned has no federation/,
      ],
      [
        ['new', '--client-id', clientA, '--application', clientB],
        /type user-assigned has no application[^]*--type chain/,
      ],
      [
        ['new', '--type', 'federated', '--client-id', clientA, '--agent-identity', clientB],
        /type federated has no agent identity[^]*--type chain/,
      ],
      [
        ['new', '--client-id', clientA, '--secret', 'pfx'],
        /type user-assigned has no Secret[^]*--type secret or certificate/,
      ],
    ];
    for (const [words, said] of wrong) {
      const result = await play(['identity', 'add', ...words], testBedOf());
      assert.equal(result.code, 2, words.join(' '));
      assert.match(result.stderr, said);
      assert.equal(result.stdout, '');
    }
  });

  it('adds a chain, and names the id that pods ask by', async () => {
    const words = ['identity', 'add', 'new', '--type', 'chain', '--client-id', clientA];
    const of = ['--application', clientB, '--tenant-id', tenant];
    const application = { tenantID: tenant, clientID: clientB };
    const { stdout } = await play([...words, ...of], testBedOf());
    const { spec } = parse(stdout) as { spec: object };
    assert.deepEqual(spec, { type: 4, clientID: clientA, application });
    assert.ok(stdout.includes(`# Pods name it by the client id ${clientB}.`), stdout);
    const ofAgent = await play([...words, ...of, '--agent-identity', tenant], testBedOf());
    assert.ok(ofAgent.stdout.includes(`agentIdentity: ${tenant}`), ofAgent.stdout);
    assert.ok(ofAgent.stdout.includes(`by the client id ${tenant}.`), ofAgent.stdout);
    for (const [more, says] of [
      [['--tenant-id', tenant], /needs the client id of an application/],
      [['--application', clientB], /needs a tenant/],
    ] as const) {
      const refused = await play([...words, ...more], testBedOf());
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, says);
    }
  });

  it('adds an agent identity whose blueprint trusts a service account', async () => {
    const add = ['identity', 'add', 'new', '--type', 'chain'];
    const ids = ['--application', clientB, '--tenant-id', tenant];
    const agent = ['--agent-identity', clientA];
    const application = { tenantID: tenant, clientID: clientB };
    const [pod, node, binding] = [
      ['--federation', 'pod'],
      ['--federation', 'node'],
      ['--federation', 'binding'],
    ] as const;
    for (const federation of [pod, node]) {
      const { stdout } = await play([...add, ...ids, ...agent, ...federation], testBedOf());
      const { spec } = parse(stdout) as { spec: object };
      assert.deepEqual(spec, {
        type: 4,
        application,
        agentIdentity: clientA,
        federation: federation[1],
      });
      assert.ok(stdout.includes(`# Pods name it by the client id ${clientA}.`), stdout);
    }
    for (const [words, says] of [
      [[...agent, ...pod, '--client-id', clientA], /has no managed identity/],
      [
        [...agent, ...pod, '--resource-id', ordersId],
        /Leave out --client-id and --resource-id, or --federation/,
      ],
      [pod, /needs an agent identity[^]*--type federated/],
      [[...agent, ...binding], /Give --federation pod or node/],
      [agent, /client id is missing/],
    ] as const) {
      const { code, stdout, stderr } = await play([...add, ...ids, ...words], testBedOf());
      assert.deepEqual([code, stdout], [2, '']);
      assert.match(stderr, says);
    }
  });

  it('writes whose service account a federated one has', async () => {
    const words = ['--client-id', clientA, '--tenant-id', tenant, '--federation', 'binding'];
    const add = ['identity', 'add', 'new', '--type', 'federated', ...words];
    const { spec } = parse((await play(add, testBedOf())).stdout) as { spec: object };
    const expected = { type: 3, clientID: clientA, tenantID: tenant, federation: 'binding' };
    assert.deepEqual(spec, expected);
  });

  it('names the Secret of a type that has one', async () => {
    const words = [
      'identity',
      'add',
      'new',
      '--type',
      'certificate',
      '--client-id',
      clientA,
      '--tenant-id',
      tenant,
      '--secret',
      'pfx',
    ];
    const { spec } = parse((await play(words, testBedOf())).stdout) as { spec: object };
    assert.deepEqual(spec, {
      type: 2,
      clientID: clientA,
      tenantID: tenant,
      clientPassword: { name: 'pfx' },
    });
  });
});

describe('kubectl nmi identity list', () => {
  it('list shows selectors and pods', async () => {
    const testBed = testBedOf({
      pods: ['a', 'b', 'c', 'd'].map((name) =>
        createPod(name, { labels: { aadpodidbinding: 'orders' } }),
      ),
      [kinds.identities]: [createIdentity('orders'), createIdentity('far', {}, { namespace: 'x' })],
    });
    const { stdout } = await play('identity list', testBed);
    assert.match(
      stdout,
      /^NAMESPACE +NAME +TYPE[^\n]+\nshop +orders +user-assigned +431054d5\S+ +orders +a,b,c and 1 more\n$/,
    );
    const application = { tenantID: tenant, clientID: clientB };
    const chain = createIdentity('orders', { type: 4, clientID: clientA, application });
    const ofChain = testBedOf({ [kinds.identities]: [chain] });
    const { stdout: served } = await play('identity list', ofChain);
    assert.match(served, new RegExp(`orders +chain +${clientB}`));
    const far = (await play('identity list -A', testBed)).stdout;
    assert.match(far, /^x +far +user-assigned +- +- +-$/m);
    const three = testBedOf({
      pods: ['a', 'b', 'c'].map((name) =>
        createPod(name, { labels: { aadpodidbinding: 'orders' } }),
      ),
    });
    assert.match((await play('identity list', three)).stdout, / a,b,c\n$/);
  });

  it('refuses a namespace that does not exist, and shows one that is empty', async () => {
    const testBed = testBedOf({ namespaces: [{ metadata: { name: 'empty' } }] });
    const unknown = await play('identity list -n shpo', testBed);
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /^error: namespace shpo does not exist\n/);
    const empty = await play('identity list -n empty', testBed);
    assert.deepEqual([empty.code, empty.stderr], [0, '']);
  });

  it('a binding for a service account lists only the pods of that account', async () => {
    const bindings = [
      createBinding('orders', {
        azureIdentity: 'orders',
        selector: 'orders',
        serviceAccount: 'robot',
      }),
    ];
    const { stdout } = await play(
      'identity list -o json',
      testBedOf({ [kinds.bindings]: bindings }),
    );
    assert.deepEqual(
      (JSON.parse(stdout) as { identities: { pods: string[] }[] }).identities[0]?.pods,
      [],
    );
  });

  it('list is quick with thousands of them, by three calls of kubectl', async () => {
    const numbers = Array.from({ length: 5_000 }, (_, at) => `i-${at}`);
    const testBed = testBedOf({
      pods: numbers.map((name) => createPod(name, { labels: { aadpodidbinding: name } })),
      [kinds.identities]: numbers.map((name) => createIdentity(name)),
      [kinds.bindings]: numbers.map((name) =>
        createBinding(name, { azureIdentity: name, selector: name }),
      ),
    });
    using time = new OwnTime();
    const { stdout, reads } = await play('identity list -A', testBed);
    const tookMs = time.nowMs();
    assert.match(stdout, /^shop +i-4999 .* i-4999 +i-4999$/m);
    assert.equal(reads, 3);
    assert.ok(tookMs < 5_000, `${tookMs} ms; a look at each pod for each binding takes 25 s`);
  });
});

describe('kubectl nmi identity assign', () => {
  const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };
  const chain = {
    type: 4,
    clientID: clientA,
    resourceID: ordersId,
    application: { tenantID: tenant, clientID: clientB },
  };

  it('limits the binding', async () => {
    const words = [
      'identity',
      'assign',
      'orders',
      '--selector',
      'web',
      '--service-account',
      'robot',
    ];
    const { stdout } = await play(words, testBedOf({ [kinds.bindings]: [] }));
    assert.match(stdout, /selector: web\n {2}serviceAccount: robot\n/);
  });

  it('needs no scale set for an identity that is federated', async () => {
    const { stdout } = await play(
      'identity assign orders',
      testBedOf({ [kinds.identities]: [createIdentity('orders', federated)] }),
    );
    assert.doesNotMatch(stdout, /vmss/);
    assert.match(stdout, /It is federated: kubectl nmi identity federate orders -n shop/);
  });

  it('assigns the managed identity that a chain begins with', async () => {
    const assign = async (spec: object) => {
      const testBed = testBedOf({ [kinds.identities]: [createIdentity('orders', spec)] });
      return (await play('identity assign orders', testBed)).stdout;
    };
    const byNode = await assign(chain);
    assert.match(byNode, /vmss identity assign .*userAssignedIdentities/);
    assert.match(byNode, /has to trust what it begins with: kubectl nmi identity federate orders/);
    const byPod = { ...chain, clientID: '', resourceID: '', federation: 'pod' };
    assert.doesNotMatch(await assign(byPod), /vmss/);
  });

  it('needs one for an identity without a type, which comes from the node', async () => {
    const untyped = { ...federated, type: undefined };
    const { stdout } = await play(
      'identity assign orders',
      testBedOf({ [kinds.identities]: [createIdentity('orders', untyped)] }),
    );
    assert.match(stdout, /vmss/);
  });

  it('shows the gap in a command line', async () => {
    const nodes = [
      {
        metadata: { name: 'n' },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      },
    ];
    assert.match(
      (await play('identity assign orders', testBedOf({ nodes }))).stdout,
      /--identities '<resource id of the identity>'/,
    );
  });

  it('passes nothing of an object on to az that az would read as something else', async () => {
    const nodes = [
      {
        metadata: { name: 'n' },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      },
    ];
    const verbs = [
      ['identity', 'assign', 'orders', '--apply'],
      ['identity', 'federate', 'orders'],
      ['migrate', 'to-workload-identity', '--apply'],
      ['migrate', 'to-federation', '--tenant-id', tenant, '--apply'],
    ];
    const hostile = ['[system]', '@/etc/passwd', '--debug'];
    const specs = hostile.flatMap((text) => [
      { type: 0, clientID: clientA, resourceID: text },
      { type: 3, tenantID: tenant, clientID: text },
      { type: 3, tenantID: tenant, clientID: clientA, resourceID: text },
    ]);
    for (const spec of specs) {
      for (const words of verbs) {
        const az = createFakeAz();
        const testBed = testBedOf(
          { nodes, [kinds.identities]: [createIdentity('orders', spec)] },
          az,
        );
        const { stdout } = await play(words, testBed);
        const lines = [...az.lines, ...(stdout.match(/^(?:# )?az .*/gm) ?? [])].join('\n');
        for (const text of hostile) {
          assert.ok(!lines.includes(text), `${words.join(' ')}: ${lines}`);
        }
      }
    }
  });

  it('refuses values for az that are none', async () => {
    const nothing = testBedOf({ [kinds.bindings]: [] });
    const words = ['identity', 'federate', 'orders', '--service-account=@file'];
    const { code, stderr } = await play(words, nothing);
    assert.deepEqual([code, /"@file" cannot be the name of an object/.test(stderr)], [2, true]);
    const add = ['identity', 'add', 'new', '--resource-id', '[system]', '--client-id', clientA];
    assert.match((await play(add, nothing)).stderr, /is no Azure resource id/);
  });

  it('finds no identity with another name', async () => {
    const { code, stderr } = await play('identity assign none', testBedOf());
    assert.equal(code, 1);
    assert.match(
      stderr,
      /has no AzureIdentity none\nList those .*: kubectl nmi identity list -n shop\n/,
    );
    const slip = await play('identity assign ordrs', testBedOf());
    assert.match(slip.stderr, /has no AzureIdentity ordrs\nDid you mean orders\?\n/);
  });

  it('assigns to no machine that Karpenter made, which is gone tomorrow', async () => {
    const labels = { 'karpenter.sh/nodepool': 'default' };
    const idOf = (rest: string) =>
      `azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/${rest}`;
    const made = {
      metadata: { name: 'aks-default-x7', labels },
      spec: { providerID: idOf('virtualMachines/aks-default-x7') },
    };
    const fixed = {
      metadata: { name: 'n' },
      spec: { providerID: idOf('virtualMachineScaleSets/pool/virtualMachines/0') },
    };
    const { stdout } = await play('identity assign orders', testBedOf({ nodes: [made, fixed] }));
    assert.equal(stdout.match(/^# az /gm)?.length, 1);
    assert.match(stdout, /^# az vmss identity assign .* --name pool /m);
    assert.match(
      stdout,
      /^# Azure assigns it to no node that Karpenter makes\. There, use type 3: kubectl nmi migrate to-federation orders -n shop /m,
    );
  });

  it('refuses a resource id of the object that is none', async () => {
    const spec = { type: 0, clientID: clientA, resourceID: '/subscriptions/x' };
    const { code, stderr } = await play(
      'identity assign orders',
      testBedOf({ [kinds.identities]: [createIdentity('orders', spec)] }),
    );
    assert.equal(code, 1);
    assert.match(stderr, /^error: AzureIdentity orders has a spec\.resourceID that is no id of /);
  });

  it('shows the line for each scale set where no node is visible', async () => {
    const labels = { 'karpenter.sh/nodepool': 'default' };
    const made = testBedOf({ nodes: [{ metadata: { name: 'n', labels } }] });
    assert.match(
      (await play('identity assign orders', made)).stdout,
      /^# No other node of Azure is visible to you\. For each scale set: az vmss/m,
    );
    const { stdout } = await play('identity assign orders', testBedOf());
    assert.match(
      stdout,
      /^# No node of Azure is visible to you\. For each scale set: az vmss identity assign/m,
    );
    assert.match(
      stdout,
      /^# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants$/m,
    );
  });

  it('refuses invalid labels', async () => {
    assert.match(
      (await play(['identity', 'assign', 'orders', '--selector', 'a b'], testBedOf())).stderr,
      /cannot be the value of a label/,
    );
  });
});

describe('kubectl nmi identity federate', () => {
  const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };

  const testBed = (
    spec: object = federated,
    pods = [
      createPod('web', {
        labels: { aadpodidbinding: 'orders' },
        spec: { serviceAccountName: 'robot' },
      }),
    ],
  ) =>
    testBedOf({
      pods: [...pods, createAgentPod('node-1', { args: ['--cloud=usgovernment'] })],
      [kinds.identities]: [createIdentity('orders', spec)],
    });

  it('has a command line for each service account of the bound pods', async () => {
    const { stdout } = await play('identity federate orders', testBed());
    assert.match(
      stdout,
      /# subject system:serviceaccount:shop:robot\n[^]*# az identity federated-credential create --name shop-robot-\w+ .*--issuer https:\/\/oidc\.example\/1\/ .*--audiences api:\/\/AzureADTokenExchangeUSGov\n/,
    );
  });

  it('has the credential by which an application trusts the managed identity of a chain', async () => {
    const application = { tenantID: tenant, clientID: clientB };
    const byResource = { type: 4, resourceID: ordersId, application };
    const { stdout } = await play('identity federate orders', testBed(byResource));
    assert.match(stdout, /az identity show --ids \S+ --query .*PRINCIPAL_ID:principalId/);
    assert.match(
      stdout,
      new RegExp(
        `az ad app federated-credential create --id ${clientB} .*microsoftonline\\.us/TENANT.*USGov`,
      ),
    );
    assert.doesNotMatch(stdout, /system:serviceaccount/);
    // az replaces a credential of the same name, and other clusters have the same names of objects.
    assert.match(stdout, /"name":"shop-orders-[0-9a-f]{16}"/);
    const json = await play('identity federate orders -o json', testBed(byResource));
    assert.equal((JSON.parse(json.stdout) as { done: boolean }).done, false);
    const byClient = { type: 4, clientID: clientA, application };
    const found = await play('identity federate orders', testBed(byClient));
    assert.ok(found.stdout.includes(`[?clientId=='${clientA}']`), found.stdout);
  });

  it('is for the service accounts that the blueprint of a chain trusts', async () => {
    const application = { tenantID: tenant, clientID: clientB };
    const chain = { type: 4, federation: 'pod', application, agentIdentity: clientA };
    const { stdout } = await play('identity federate orders', testBed(chain));
    const line = `az ad app federated-credential create --id ${clientB} .*system:serviceaccount:shop:robot`;
    assert.match(stdout, new RegExp(line));
  });

  it('is for the default account of a pod that names none, and changes nothing itself', async () => {
    const labels = { aadpodidbinding: 'orders' };
    const pods = [createPod('web', { labels, spec: { serviceAccountName: '' } })];
    const words = ['identity', 'federate', 'orders', '-o', 'json'];
    const { stdout } = await play(words, testBed(federated, pods));
    const { done, notes } = JSON.parse(stdout) as { done: boolean; notes: readonly string[] };
    assert.equal(done, false);
    assert.ok(notes.includes('subject system:serviceaccount:shop:default'), stdout);
  });

  it('accepts names if there are no pods yet, and warns of too many', async () => {
    const none = await play('identity federate orders', testBed(federated, []));
    assert.equal(none.code, 2);
    assert.match(none.stderr, /no service account is known/);
    const many = Array.from({ length: 21 }, (_, index) => `--service-account=a${index}`);
    assert.match(
      (await play(['identity', 'federate', 'orders', ...many], testBed())).stdout,
      /^# 21 service accounts, and Azure allows 20 federated/m,
    );
  });

  it('is for the agent’s account if the identity specifies node', async () => {
    const { stdout } = await play(
      'identity federate orders',
      testBed({ ...federated, federation: 'node' }),
    );
    assert.match(stdout, /subject system:serviceaccount:kube-system:default/);
    const elsewhere = await play(
      'identity federate orders --agent-namespace agents',
      testBed({ ...federated, federation: 'node' }),
    );
    assert.equal(elsewhere.code, 2);
    assert.match(
      elsewhere.stderr,
      /no verified agent is in namespace agents, so .*\nAgents in another namespace need --agent-namespace/,
    );
  });

  it('is a ClusterRole and a line of az aks if the identity specifies binding', async () => {
    const spec = { ...federated, federation: 'binding' };
    const { code, stdout, calls } = await play('identity federate orders', testBed(spec));
    assert.deepEqual([code, calls], [0, []], 'it changes nothing itself');
    assert.match(stdout, /^kind: ClusterRoleBinding$[^]*^ {2}- kind: ServiceAccount$/m);
    const line = `az aks identity-binding create --resource-group CLUSTER_RESOURCE_GROUP --cluster-name CLUSTER --name orders --managed-identity-resource-id ${ordersId}`;
    assert.ok(stdout.includes(`# ${line}\n`), stdout);
  });

  it('needs an issuer that Entra ID can read', async () => {
    const { code, stderr } = await play('identity federate orders', {
      ...testBed(),
      other: () => ok('{"issuer":"kubernetes.default.svc"}'),
    });
    assert.equal(code, 1);
    assert.equal(
      stderr,
      'error: the cluster has no issuer that Entra ID could read\nFor AKS: az aks update --enable-oidc-issuer\n',
    );
  });
});

const revoke = ['identity', 'revoke', 'orders'];

/** A server that keeps the field, unless it is of an older definition. */
function serverOf(given: {
  readonly spec?: object;
  readonly drops?: boolean;
  readonly revertsIt?: boolean;
  readonly serverTime?: string;
}): Recorded {
  const { spec = { type: 0, clientID: clientA }, drops, revertsIt, serverTime } = given;
  const stored: RawObject[] = [createIdentity('orders', spec)];
  return {
    ...boundTestBed({ [kinds.identities]: stored }),
    other: (_program, args) => {
      const patch = args.find((each) => each.startsWith('--patch='))?.slice('--patch='.length);
      const change = JSON.parse(patch ?? '{}') as { readonly spec: object };
      const next = createIdentity('orders', drops === true ? spec : { ...spec, ...change.spec });
      const times = [
        { manager: 'helm', time: '2027-01-01T00:00:00Z' },
        { manager: 'kubectl-nmi', time: serverTime },
      ];
      if (args.includes('--dry-run=server')) {
        return ok(JSON.stringify({ ...next, metadata: { managedFields: times } }));
      }
      if (revertsIt !== true) stored[0] = next;
      return ok('patched\n');
    },
  };
}

const patchOf = (time: string) => `--patch={"spec":{"notBefore":"${time}"}}`;

describe('kubectl nmi identity revoke', () => {
  it('shows the change and what it cannot do, and does nothing', async () => {
    const { code, stdout, calls } = await play(revoke, serverOf({}));
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /^# In context dev, namespace shop:\n/);
    const ofNode =
      /# Its tokens begin with one of the node: Azure itself may return the same token/;
    assert.match(stdout, ofNode);
    assert.match(stdout, /kubectl --context=dev patch \S+ orders .*"notBefore":"2026-11-27T06:00/);
    const application = { tenantID: 'a.example', clientID: clientA };
    for (const [spec, isOfNode] of [
      [{ clientID: clientA }, true],
      [{ type: 4, clientID: clientA, application }, true],
      [{ type: 4, federation: 'pod', application, agentIdentity: clientA }, false],
      [{ type: 3, clientID: clientA, tenantID: 'a.example' }, false],
    ] as const) {
      const shown = await play(revoke, serverOf({ spec }));
      assert.equal(ofNode.test(shown.stdout), isOfNode, JSON.stringify(spec));
    }
  });

  it('tries the change, makes it with --apply, and reads it back', async () => {
    const { code, stdout, calls } = await play([...revoke, '--apply'], serverOf({}));
    assert.equal(code, 0);
    const made = ['kubectl', 'patch', kinds.identities, 'orders', '--namespace=shop'];
    const how = ['--type=merge', '--field-manager=kubectl-nmi', patchOf('2026-11-27T06:00:00Z')];
    assert.deepEqual(
      calls.map((each) => each.filter((word) => !/^--(?:context|request-timeout)=/.test(word))),
      [
        [...made, ...how, '--dry-run=server', '--output=json', '--show-managed-fields'],
        [...made, ...how],
      ],
    );
    assert.match(stdout, /\npatched\n$/);
  });

  it('takes the time of the server if the clock of this machine is ahead', async () => {
    for (const [serverTime, time] of [
      ['2026-11-27T04:00:00Z', '2026-11-27T04:00:00Z'],
      ['2026-11-27T06:30:00Z', '2026-11-27T06:00:00Z'],
      ['never', '2026-11-27T06:00:00Z'],
    ] as const) {
      const { code, calls } = await play([...revoke, '--apply'], serverOf({ serverTime }));
      assert.equal(code, 0);
      assert.ok(calls[1]?.includes(patchOf(time)), serverTime);
    }
  });

  it('waits for the next second if the object has the present one already', async () => {
    const spec = { type: 0, clientID: clientA, notBefore: '2026-11-27T06:00:00Z' };
    const sleeps: number[] = [];
    const { code, calls } = await play([...revoke, '--apply'], {
      ...serverOf({ spec }),
      onSleep: (ms) => sleeps.push(ms),
    });
    assert.deepEqual([code, sleeps], [0, [1000]]);
    assert.ok(calls[1]?.includes(patchOf('2026-11-27T06:00:01Z')), calls.join('\n'));
    const earlier = { ...spec, notBefore: '2026-11-27T05:59:59Z' };
    const later = await play([...revoke, '--apply'], serverOf({ spec: earlier }));
    assert.ok(later.calls[1]?.includes(patchOf('2026-11-27T06:00:00Z')));
  });

  it('changes nothing where the definition is too old for it', async () => {
    const { code, stderr, calls } = await play([...revoke, '--apply'], serverOf({ drops: true }));
    assert.equal(code, 1);
    assert.equal(calls.length, 1);
    assert.match(
      stderr,
      /AzureIdentity shop\/orders is not revoked: the cluster does not keep its spec\.notBefore\n.*crds\.yaml/,
    );
  });

  it('fails if the object does not have it afterwards', async () => {
    const server = serverOf({ revertsIt: true });
    const { code, stderr } = await play([...revoke, '--apply'], server);
    assert.equal(code, 1);
    assert.match(stderr, /is not revoked/);
  });

  it('reports an identity that does not exist', async () => {
    const { code, stderr } = await play('identity revoke nobody', serverOf({}));
    assert.notEqual(code, 0);
    assert.match(stderr, /nobody/);
  });
});

describe('a plan', () => {
  const nodes = [
    {
      metadata: { name: 'n' },
      spec: {
        providerID:
          'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
      },
    },
  ];
  const clientID = '431054d5-1b5d-4836-8331-11abcaa2c1d8';
  function planBedOf(
    az = createFakeAz(),
    kubectl = ok('azureidentitybinding created\n'),
    changes: Recorded['objects'] = { [kinds.bindings]: [] },
  ): Recorded {
    return {
      ...boundTestBed({
        nodes,
        [kinds.identities]: [createIdentity('orders', { type: 0, clientID, resourceID: ordersId })],
        ...changes,
      }),
      other: (program, args) => (program === 'az' ? az.run(args) : kubectl),
    };
  }
  const programsOf = (calls: readonly (readonly string[])[]) =>
    calls.map((words) => words.slice(0, 2).join(' '));

  it('is shown by default: YAML for kubectl, the rest as comments', async () => {
    const { stdout, calls } = await play('identity assign orders', planBedOf());
    assert.deepEqual(calls, []);
    assert.equal(
      stdout,
      `# In context dev, namespace shop:
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata:
  name: orders
  namespace: shop
spec:
  azureIdentity: orders
  selector: orders
# Pods get it by the label aadpodidbinding=orders in their template.
# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants
# az vmss identity assign --subscription s --resource-group rg --name pool --identities ${ordersId}
`,
    );
  });

  it('names its cluster also when it has one line only', async () => {
    const existing = { [kinds.bindings]: [createBinding('orders')] };
    const { stdout } = await play(
      'identity assign orders',
      planBedOf(undefined, undefined, existing),
    );
    assert.match(stdout, /^# In context dev, namespace shop:\n(?:# (?!az ).*\n)*# az .*\n$/);
  });

  it('has no YAML line injected by the text of an object', async () => {
    const hostile = `orders\n---\napiVersion: v1\nkind: Secret\rx: y\u0085z: a\n# `;
    const annotations = { 'azure.workload.identity/client-id': hostile };
    const { stdout } = await play(
      'migrate to-workload-identity',
      planBedOf(undefined, ok('{"issuer":"https://oidc.example/"}'), {
        serviceaccounts: [createObject('ServiceAccount', 'default', {}, { annotations }, 'v1')],
      }),
    );
    assert.equal(parseAllDocuments(stdout).length, 0);
    assert.match(stdout, /^# Service account shop\/default is left out: .*apiVersion: v1.*$/m);
    assert.doesNotMatch(stdout, /^(?:---|apiVersion: v1)$|\r|\u0085/m);
  });

  it('is executed with --apply, in the cluster and not in Azure', async () => {
    const az = createFakeAz();
    const { code, stdout, calls, inputs } = await play(
      'identity assign orders --apply',
      planBedOf(az),
    );
    assert.equal(code, 0);
    assert.deepEqual([programsOf(calls), az.lines], [['kubectl create'], []]);
    assert.match(inputs[0] ?? '', /^apiVersion: aadpodidentity/);
    assert.match(
      stdout,
      /^# In context .*\n# az vmss identity assign .*\nazureidentitybinding created\n$/s,
    );
  });

  it('ends with the failure of kubectl', async () => {
    const denied = failed(
      'Error from server (Forbidden): x cannot create resource "azureidentitybindings" in API group "aadpodidentity.k8s.io" in the namespace "shop"',
    );
    const { code, stderr } = await play(
      'identity assign orders --apply',
      planBedOf(undefined, denied),
    );
    assert.equal(code, 77);
    assert.match(stderr, /verbs: \["create"\] in namespace shop/);
  });

  it('is one document in JSON, whatever commands it runs', async () => {
    const { stdout } = await play('identity assign orders --apply -o json', planBedOf());
    const { done, az } = JSON.parse(stdout) as { done: boolean; az: string[][] };
    assert.deepEqual([done, az[0]?.[0]], [true, 'vmss']);
    assert.match(
      (await play('identity assign orders -o yaml', planBedOf())).stdout,
      /^target: context dev, namespace shop\nobjects:\n/,
    );
  });

  it('creates what is not there, and overwrites nothing', async () => {
    const words = ['identity', 'assign', 'orders', '--selector', 'web', '--apply'];
    const other = planBedOf(undefined, undefined, { [kinds.bindings]: [createBinding('orders')] });
    const { code, stderr, calls } = await play(words, other);
    assert.deepEqual([code, calls], [1, []]);
    assert.equal(
      stderr,
      'error: AzureIdentityBinding shop/orders exists; its spec.selector is "orders", and would be "web"\nChoose another name, or change it yourself: kubectl --context=dev -n shop edit azureidentitybindings.aadpodidentity.k8s.io orders\n',
    );
    const limited = { azureIdentity: 'orders', selector: 'web', serviceAccount: 'robot' };
    const narrower = planBedOf(undefined, undefined, {
      [kinds.bindings]: [createBinding('orders', limited)],
    });
    assert.match((await play(words, narrower)).stderr, /is "robot", and would be not set/);
    const blind = { ...planBedOf(), forbidden: { [kinds.bindings]: 'all-namespaces' } } as const;
    assert.equal((await play(words, blind)).code, 0);
  });

  it('names the user’s own connection in every command', async () => {
    const words = ['migrate', 'to-workload-identity', '--context', 'prod', '--as', 'a b'];
    const { stdout } = await play(words, planBedOf(undefined, issuer, {}));
    assert.match(stdout, /^# kubectl --context=dev '--as=a b' annotate serviceaccount default/m);
  });
});
