import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { OwnTime } from '../../../../lab/pods/own-time.ts';
import type { RawObject } from '../../../../src/kubectl/base/object.ts';
import {
  bound,
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
  ordersId,
  play,
  serverAnswers,
  tenant,
  type Recorded,
} from '../recorded-kubectl.ts';

const bed = boundTestBed();
const application = { tenantID: tenant, clientID: clientB };
const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };
const withSpec = (spec: object, changes: Recorded['objects'] = {}) =>
  boundTestBed({ [kinds.identities]: [createIdentity('orders', spec)], ...changes });
const nodeOf = (rest: string, labels = {}) => ({
  metadata: { name: rest, labels },
  spec: {
    providerID: `azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/${rest}`,
  },
});
const pool = nodeOf('virtualMachineScaleSets/pool/virtualMachines/0');
const karpenter = { 'karpenter.sh/nodepool': 'default' };
const ofCommands = (calls: readonly (readonly string[])[]) =>
  calls.map((words) => words.slice(0, 2).join(' '));

describe('kubectl nmi identity add', () => {
  const ids = `--client-id ${clientA}`;
  const chain = `--type chain --application ${clientB} --tenant-id ${tenant}`;
  const typed = `${ids} --tenant-id ${tenant} --type`;

  it('prints the object, how to bind it, and what else it needs', async () => {
    const words = `identity add new ${ids} --resource-id ${ordersId}`;
    assert.equal(
      (await play(words, boundTestBed({ nodes: [pool] }))).stdout,
      `# In context dev, namespace shop:
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata:
  name: new
  namespace: shop
spec:
  type: 0
  resourceID: ${ordersId}
  clientID: ${clientA}
# Then bind it: kubectl nmi identity assign new -n shop --context=dev
# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants -n shop --context=dev
# az vmss identity assign --subscription s --resource-group rg --name pool --identities ${ordersId}
`,
    );
  });

  it('makes the binding too, with --selector', async () => {
    const words = `identity add new ${ids} --resource-id ${ordersId} --selector web --apply`;
    const { code, inputs, stdout } = await play(words, {
      ...boundTestBed({ nodes: [pool] }),
      other: serverAnswers,
    });
    assert.equal(code, 0);
    const made = parseAllDocuments(inputs.join('')).map((each) => each.toJS() as RawObject);
    assert.deepEqual(
      made.map(({ kind, spec }) => [kind, spec]),
      [
        ['AzureIdentity', { type: 0, resourceID: ordersId, clientID: clientA }],
        ['AzureIdentityBinding', { azureIdentity: 'new', selector: 'web' }],
      ],
    );
    assert.match(
      stdout,
      /^# Pods get it by the label aadpodidbinding=web[^]* vmss identity assign /m,
    );
    assert.doesNotMatch(stdout, /Then bind it/);
  });

  it('adds nothing that is there already', async () => {
    const { code, stdout, calls } = await play(`identity add orders ${ids} --apply`, bed);
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /^# AzureIdentity shop\/orders is there already\.\n# Then bind it: /);
  });

  const entra = { clientID: clientA, tenantID: tenant };
  const agent = `${chain} --agent-identity ${clientA}`;
  const ofAgent = { type: 4, application, agentIdentity: clientA };
  const added: readonly (readonly [flags: string, spec: object, served?: string])[] = [
    // One id is enough where the node has the identity, since the agent has it too.
    [`--resource-id ${ordersId}`, { type: 0, resourceID: ordersId }],
    [`--resource-id ${ordersId} ${chain}`, { type: 4, resourceID: ordersId, application }, clientB],
    [`${ids} ${chain}`, { type: 4, clientID: clientA, application }, clientB],
    [
      `${ids} ${chain} --agent-identity ${tenant}`,
      { type: 4, clientID: clientA, application, agentIdentity: tenant },
      tenant,
    ],
    [`${agent} --federation pod`, { ...ofAgent, federation: 'pod' }, clientA],
    [`${agent} --federation node`, { ...ofAgent, federation: 'node' }, clientA],
    [`${typed} federated --federation binding`, { type: 3, ...entra, federation: 'binding' }],
    [`${typed} certificate --secret pfx`, { type: 2, ...entra, clientPassword: { name: 'pfx' } }],
  ];
  for (const [flags, spec, served] of added) {
    it(`writes what the flags name: ${flags.replaceAll(/[-\w]{30,}|\S+\/orders/g, '…')}`, async () => {
      const { code, stdout } = await play(`identity add new ${flags}`, bed);
      assert.equal(code, 0);
      assert.deepEqual((parse(stdout) as { spec: object }).spec, spec);
      const said = /^# Pods name it by the client id (\S+)\.$/m.exec(stdout)?.[1];
      assert.equal(said, served);
    });
  }

  for (const [words, said] of [
    ['new', /no id of the identity is given[^]*az identity list/],
    [`New! ${ids}`, /cannot be the name of an object/],
  ] as const) {
    it(`is refused: ${said.source}`, async () => {
      const { code, stdout, stderr } = await play(`identity add ${words}`, bed);
      assert.deepEqual([code, stdout], [2, '']);
      assert.match(stderr, said);
    });
  }

  it('is refused by what the API server says, without a change', async () => {
    const refusal =
      'The AzureIdentity "new" is invalid: spec.tenantID: types 1, 2 and 3 need a tenant\n';
    const { code, stdout, stderr, calls } = await play(`identity add new ${ids}`, {
      ...bed,
      refusal,
    });
    assert.deepEqual([code, stdout, calls], [1, '', []]);
    assert.match(stderr, /^error: cannot create the objects: .* need a tenant\n/);
  });

  it('is shown to a user who may not create it, with that', async () => {
    const refusal =
      'Error from server (Forbidden): azureidentities.aadpodidentity.k8s.io is forbidden: User "dev" cannot create resource "azureidentities" in API group "aadpodidentity.k8s.io" in the namespace "shop"\n';
    const { code, stdout } = await play(`identity add new ${ids}`, { ...bed, refusal });
    assert.equal(code, 0);
    assert.match(stdout, /^ {2}clientID: /m);
    assert.match(stdout, /^# Not checked by the API server: .* User "dev" cannot create /m);
  });
});

describe('kubectl nmi identity list', () => {
  const named = (...names: readonly string[]) => names.map((name) => createPod(name, bound));

  it('shows ids, selectors and pods', async () => {
    const far = createIdentity('far', {}, { namespace: 'x' });
    const identities = { [kinds.identities]: [createIdentity('orders'), far] };
    const limited = { azureIdentity: 'orders', selector: 'orders', serviceAccount: 'robot' };
    const ofRobot = { [kinds.bindings]: [createBinding('orders', limited)] };
    for (const [flags, changes, said] of [
      [
        '',
        { pods: named('a', 'b', 'c', 'd'), ...identities },
        /^NAMESPACE +NAME +TYPE[^\n]+\nshop +orders +user-assigned +431054d5\S+ +orders +a,b,c and 1 more\n$/,
      ],
      [' -A', identities, /^x +far +user-assigned +- +- +-$/m],
      ['', { pods: named('a', 'b', 'c') }, / a,b,c\n$/],
      ['', { pods: named('a'), ...ofRobot }, / orders +-\n$/],
      [
        '',
        {
          [kinds.identities]: [
            createIdentity('orders', { type: 4, clientID: clientA, application }),
          ],
        },
        new RegExp(`orders +chain +${clientB}`),
      ],
    ] as const) {
      assert.match((await play(`identity list${flags}`, boundTestBed(changes))).stdout, said);
    }
  });

  it('refuses a namespace that does not exist, and shows one that is empty', async () => {
    const recorded = boundTestBed({ namespaces: [{ metadata: { name: 'empty' } }] });
    const unknown = await play('identity list -n shpo', recorded);
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /^error: namespace shpo does not exist\n/);
    const empty = await play('identity list -n empty', recorded);
    assert.deepEqual([empty.code, empty.stderr], [0, '']);
  });

  it('is quick with thousands of them, by three calls of kubectl', async () => {
    const numbers = Array.from({ length: 5_000 }, (_, at) => `i-${at}`);
    const recorded = boundTestBed({
      pods: numbers.map((name) => createPod(name, { labels: { aadpodidbinding: name } })),
      [kinds.identities]: numbers.map((name) => createIdentity(name)),
      [kinds.bindings]: numbers.map((name) =>
        createBinding(name, { azureIdentity: name, selector: name }),
      ),
    });
    using time = new OwnTime();
    const { stdout, reads } = await play('identity list -A', recorded);
    const tookMs = time.nowMs();
    assert.match(stdout, /^shop +i-4999 .* i-4999 +i-4999$/m);
    assert.equal(reads, 3);
    assert.ok(tookMs < 5_000, `${tookMs} ms; a look at each pod for each binding takes 25 s`);
  });
});

describe('kubectl nmi identity assign', () => {
  const assign = 'identity assign orders';
  const chain = { type: 4, clientID: clientA, resourceID: ordersId, application };
  const unbound = { [kinds.bindings]: [] };
  const vmss = / vmss identity assign /;
  const noVmss = /^(?![^]*vmss)/;
  const invisible = (other: string) =>
    new RegExp(
      `^# No ${other}node of Azure is visible to you. For each scale set: az vmss identity assign`,
      'm',
    );

  for (const [what, flags, recorded, ...said] of [
    [
      'limits the binding',
      ' --selector web --service-account robot',
      boundTestBed(unbound),
      /selector: web\n {2}serviceAccount: robot\n/,
    ],
    [
      'needs no scale set for an identity that is federated',
      '',
      withSpec(federated),
      noVmss,
      /It is federated: kubectl nmi identity federate orders -n shop/,
    ],
    [
      'assigns the managed identity that a chain begins with',
      '',
      withSpec(chain),
      vmss,
      /has to trust what it begins with: kubectl nmi identity federate orders/,
    ],
    [
      'assigns nothing for a chain that begins with a service account',
      '',
      withSpec({ ...chain, clientID: '', resourceID: '', federation: 'pod' }),
      noVmss,
    ],
    ['takes no type for one of the node', '', withSpec({ ...federated, type: undefined }), vmss],
    [
      'shows the gap in a command line',
      '',
      boundTestBed({ nodes: [pool] }),
      /--identities '<resource id of the identity>'/,
    ],
    [
      'assigns to no machine that Karpenter made, which is gone tomorrow',
      '',
      boundTestBed({ nodes: [nodeOf('virtualMachines/x7', karpenter), pool] }),
      /^(?![^]*# az vm )[^]*^# az vmss identity assign .* --name pool /m,
      /^# Azure assigns it to no node that Karpenter makes\. There, use type 3: kubectl nmi migrate to-federation orders -n shop /m,
    ],
    [
      'shows the line for each scale set where only nodes of Karpenter are visible',
      '',
      boundTestBed({ nodes: [{ metadata: { name: 'n', labels: karpenter } }] }),
      invisible('other '),
    ],
    ['shows the line for each scale set where no node is visible', '', bed, invisible('')],
  ] as const) {
    it(what, async () => {
      const { code, stdout } = await play(assign + flags, recorded);
      assert.equal(code, 0);
      for (const each of said) assert.match(stdout, each);
    });
  }

  for (const [words, spec, expected, said] of [
    [
      'identity assign none',
      {},
      1,
      /has no AzureIdentity none\nList those .*: kubectl nmi identity list -n shop\n/,
    ],
    ['identity assign ordrs', {}, 1, /has no AzureIdentity ordrs\nDid you mean orders\?\n/],
    [
      assign,
      { type: 0, clientID: clientA, resourceID: '/subscriptions/x' },
      1,
      /^error: AzureIdentity orders has a spec\.resourceID that is no id of /,
    ],
    [`${assign} --selector a/b/c`, {}, 2, /cannot be the value of a label/],
    [
      'identity federate orders --service-account=@file',
      federated,
      2,
      /"@file" cannot be the name/,
    ],
  ] as const) {
    it(`is refused: ${said.source}`, async () => {
      const { code, stderr } = await play(words, withSpec(spec));
      assert.equal(code, expected);
      assert.match(stderr, said);
    });
  }

  it('passes nothing of an object on to az that az would read as something else', async () => {
    const hostile = ['[system]', '@/etc/passwd', '--debug'];
    for (const text of hostile) {
      for (const spec of [
        { type: 0, clientID: clientA, resourceID: text },
        { type: 3, tenantID: tenant, clientID: text },
        { ...federated, resourceID: text },
      ]) {
        for (const words of [
          `${assign} --apply`,
          'identity federate orders',
          'migrate to-workload-identity --apply',
          `migrate to-federation --tenant-id ${tenant} --apply`,
        ]) {
          const { stdout } = await play(words, withSpec(spec, { nodes: [pool] }));
          const lines = (stdout.match(/^(?:# )?az .*/gm) ?? []).join('\n');
          assert.ok(!lines.includes(text), `${words}: ${lines}`);
        }
      }
    }
  });
});

describe('kubectl nmi identity federate', () => {
  const federate = 'identity federate orders';
  const agent = createAgentPod('node-1', { args: ['--cloud=usgovernment'] });
  const robot = createPod('web', { ...bound, spec: { serviceAccountName: 'robot' } });
  const bedOf = (spec: object = federated, ...pods: readonly RawObject[]) =>
    withSpec(spec, { pods: [...(pods.length > 0 ? pods : [robot]), agent] });
  const nameless = createPod('web', { ...bound, spec: { serviceAccountName: '' } });
  const ofChain = { type: 4, resourceID: ordersId, application };
  const many = Array.from({ length: 21 }, (_, at) => ` --service-account=a${at}`).join('');
  const toApp = `az ad app federated-credential create --id ${clientB} .*`;

  for (const [what, flags, recorded, ...said] of [
    [
      'each service account of the bound pods',
      '',
      bedOf(),
      /# subject system:serviceaccount:shop:robot\n[^]*# az identity federated-credential create --name shop-robot-\w+ .*--issuer https:\/\/oidc\.example\/ .*--audiences api:\/\/AzureADTokenExchangeUSGov\n/,
    ],
    [
      'the default account of a pod that names none',
      '',
      bedOf(federated, nameless),
      /^# subject system:serviceaccount:shop:default$/m,
    ],
    [
      'the managed identity of a chain, which its application trusts',
      '',
      bedOf(ofChain),
      /az identity show --ids \S+ --query .*PRINCIPAL_ID:principalId/,
      new RegExp(`${toApp}microsoftonline\\.us/TENANT.*USGov`),
      // az replaces a credential of the same name, and other clusters have the same names of objects.
      /"name":"shop-orders-[0-9a-f]{16}"/,
      /^(?![^]*system:serviceaccount)/,
    ],
    [
      'the managed identity of a chain, which has a client id',
      '',
      bedOf({ type: 4, clientID: clientA, application }),
      new RegExp(`\\[\\?clientId=='${clientA}'\\]`),
    ],
    [
      'the service accounts that the blueprint of a chain trusts',
      '',
      bedOf({ type: 4, federation: 'pod', application, agentIdentity: clientA }),
      new RegExp(`${toApp}system:serviceaccount:shop:robot`),
    ],
    [
      'the agent’s account if the identity specifies node',
      '',
      bedOf({ ...federated, federation: 'node' }),
      /subject system:serviceaccount:kube-system:default/,
    ],
    [
      'names where there are no pods yet, with a warning of too many',
      many,
      bedOf(federated, createPod('other')),
      /^# 21 service accounts, and Azure allows 20 federated/m,
    ],
    [
      'a ClusterRole and a line of az aks if the identity specifies binding',
      '',
      bedOf({ ...federated, federation: 'binding' }),
      /^kind: ClusterRoleBinding$[^]*^ {2}- kind: ServiceAccount$/m,
      new RegExp(
        `^# az aks identity-binding create --resource-group CLUSTER_RESOURCE_GROUP --cluster-name CLUSTER --name orders --managed-identity-resource-id ${ordersId}$`,
        'm',
      ),
    ],
  ] as const) {
    it(`is for ${what}`, async () => {
      const { code, stdout, calls } = await play(federate + flags, recorded);
      assert.equal(code, 0);
      for (const each of said) assert.match(stdout, each);
      assert.ok(
        calls.every(([, verb]) => verb === 'get'),
        'it changes nothing itself',
      );
    });
  }

  it('has the same in JSON, which says that nothing is done', async () => {
    const { stdout } = await play(`${federate} -o json`, bedOf());
    const { done, notes } = JSON.parse(stdout) as { done: boolean; notes: readonly string[] };
    assert.equal(done, false);
    assert.ok(notes.includes('subject system:serviceaccount:shop:robot'), stdout);
  });

  it('needs a service account, an agent for its own, and an issuer that Entra ID can read', async () => {
    const other = () => ok('{"issuer":"kubernetes.default.svc"}');
    const ofNode = bedOf({ ...federated, federation: 'node' });
    for (const [flags, recorded, expected, said] of [
      ['', bedOf(federated, createPod('other')), 2, /no service account is known/],
      [
        ' --agent-namespace agents',
        ofNode,
        2,
        /no verified agent is in namespace agents, so .*\nAgents in another namespace need --agent-namespace/,
      ],
      [
        '',
        { ...bedOf(), other },
        1,
        /^error: the cluster has no issuer that Entra ID could read\nFor AKS: az aks update --enable-oidc-issuer\n$/,
      ],
    ] as const) {
      const { code, stderr } = await play(federate + flags, recorded);
      assert.equal(code, expected);
      assert.match(stderr, said);
    }
  });
});

describe('kubectl nmi identity revoke', () => {
  const revoke = 'identity revoke orders';
  const patchOf = (time: string) => `--patch={"spec":{"notBefore":"2026-11-27T${time}Z"}}`;
  const managed = { type: 0, clientID: clientA };

  /** A server that keeps the field, unless it is of an older definition. */
  function serverOf(given: {
    readonly spec?: object;
    readonly drops?: boolean;
    readonly revertsIt?: boolean;
    readonly serverTime?: string;
  }): Recorded {
    const { spec = managed, drops, revertsIt, serverTime } = given;
    const stored: RawObject[] = [createIdentity('orders', spec)];
    return {
      ...boundTestBed({ [kinds.identities]: stored }),
      other: (args) => {
        const patch = args.find((each) => each.startsWith('--patch='))?.slice('--patch='.length);
        const change = JSON.parse(patch ?? '{}') as { readonly spec: object };
        const next = createIdentity('orders', drops === true ? spec : { ...spec, ...change.spec });
        const managedFields = [
          { manager: 'helm', time: '2027-01-01T00:00:00Z' },
          { manager: 'kubectl-nmi', time: serverTime },
        ];
        if (args.includes('--dry-run=server')) {
          return ok(JSON.stringify({ ...next, metadata: { managedFields } }));
        }
        if (revertsIt !== true) stored[0] = next;
        return ok('patched\n');
      },
    };
  }

  it('shows the change and what it cannot do, and does nothing', async () => {
    const ofNode =
      /# Its tokens begin with one of the node: Azure itself may return the same token/;
    const chain = { type: 4, clientID: clientA, application };
    for (const [spec, isOfNode] of [
      [managed, true],
      [{ clientID: clientA }, true],
      [chain, true],
      [{ type: 4, federation: 'pod', application, agentIdentity: clientA }, false],
      [federated, false],
    ] as const) {
      const { code, stdout, calls } = await play(revoke, serverOf({ spec }));
      assert.deepEqual([code, calls], [0, []]);
      assert.match(stdout, /^# In context dev, namespace shop:\n/);
      assert.match(
        stdout,
        /kubectl --context=dev patch \S+ orders .*"notBefore":"2026-11-27T06:00/,
      );
      assert.equal(ofNode.test(stdout), isOfNode, JSON.stringify(spec));
    }
  });

  it('tries the change, makes it with --apply, and reads it back', async () => {
    const { code, stdout, calls } = await play(`${revoke} --apply`, serverOf({}));
    assert.equal(code, 0);
    const made = `kubectl patch ${kinds.identities} orders --namespace=shop --type=merge --field-manager=kubectl-nmi ${patchOf('06:00:00')}`;
    assert.deepEqual(
      calls.map((each) => each.join(' ').replaceAll(/ --(?:context|request-timeout)=\S+/g, '')),
      [`${made} --dry-run=server --output=json --show-managed-fields`, made],
    );
    assert.match(stdout, /\npatched\n$/);
  });

  it('takes the time of the server if this machine is ahead, and a second that the object does not have', async () => {
    for (const [given, time, sleptMs] of [
      [{ serverTime: '2026-11-27T04:00:00Z' }, '04:00:00', []],
      [{ serverTime: '2026-11-27T06:30:00Z' }, '06:00:00', []],
      [{ serverTime: 'never' }, '06:00:00', []],
      [{ spec: { ...managed, notBefore: '2026-11-27T06:00:00Z' } }, '06:00:01', [1_000]],
      [{ spec: { ...managed, notBefore: '2026-11-27T05:59:59Z' } }, '06:00:00', []],
    ] as const) {
      const sleeps: number[] = [];
      const recorded = { ...serverOf(given), onSleep: (ms: number) => sleeps.push(ms) };
      const { code, calls } = await play(`${revoke} --apply`, recorded);
      assert.deepEqual([code, sleeps], [0, sleptMs]);
      assert.ok(calls[1]?.includes(patchOf(time)), calls.join('\n'));
    }
  });

  it('fails where the definition is too old for it, the object reverts, or does not exist', async () => {
    const old =
      /AzureIdentity shop\/orders is not revoked: the cluster does not keep its spec\.notBefore\n.*: helm show crds oci:/;
    for (const [name, given, count, said] of [
      ['orders', { drops: true }, 1, old],
      ['orders', { revertsIt: true }, 2, /is not revoked/],
      ['nobody', {}, 0, /nobody/],
    ] as const) {
      const { code, stderr, calls } = await play(
        `identity revoke ${name} --apply`,
        serverOf(given),
      );
      assert.deepEqual([code, calls.length], [1, count]);
      assert.match(stderr, said);
    }
  });
});

describe('a plan', () => {
  const assign = 'identity assign orders';
  const created = ok('azureidentitybinding created\n');
  const bedOf = (changes: Recorded['objects'] = { [kinds.bindings]: [] }, create = created) => ({
    ...withSpec(
      { type: 0, clientID: clientA, resourceID: ordersId },
      { nodes: [pool], ...changes },
    ),
    other: ((args, input) =>
      args[0] === 'create' ? create : serverAnswers(args, input)) as NonNullable<Recorded['other']>,
  });
  const az = `# az vmss identity assign --subscription s --resource-group rg --name pool --identities ${ordersId}\n`;

  it('is shown by default: YAML for kubectl, the rest as comments', async () => {
    const { stdout, calls } = await play(assign, bedOf());
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
# Agents with --identity-owners=enforce need a grant for it: kubectl nmi grants -n shop --context=dev
${az}`,
    );
    const { stdout: lines } = await play(assign, bedOf({}));
    assert.match(lines, /^# In context dev, namespace shop:\n(?:# (?!az ).*\n)*# az .*\n$/);
  });

  it('has no YAML line injected by the text of an object', async () => {
    const hostile = `orders\n---\napiVersion: v1\nkind: Secret\rx: y\u0085z: a\n# `;
    const annotations = { 'azure.workload.identity/client-id': hostile };
    const serviceaccounts = [createObject('ServiceAccount', 'default', {}, { annotations }, 'v1')];
    const { stdout } = await play('migrate to-workload-identity', bedOf({ serviceaccounts }));
    assert.equal(parseAllDocuments(stdout).length, 0);
    assert.match(stdout, /^# Service account shop\/default is left out: .*apiVersion: v1.*$/m);
    assert.doesNotMatch(stdout, /^(?:---|apiVersion: v1)$|\r|\u0085/m);
  });

  it('is executed with --apply, in the cluster and not in Azure', async () => {
    const { code, stdout, calls, inputs } = await play(`${assign} --apply`, bedOf());
    assert.equal(code, 0);
    assert.deepEqual(ofCommands(calls), ['kubectl create']);
    assert.match(inputs[0] ?? '', /^apiVersion: aadpodidentity/);
    assert.match(stdout, /^# In context .*\n# az vmss .*\nazureidentitybinding created\n$/s);
    const denied = failed(
      'Error from server (Forbidden): x cannot create resource "azureidentitybindings" in API group "aadpodidentity.k8s.io" in the namespace "shop"',
    );
    const refused = await play(`${assign} --apply`, bedOf(undefined, denied));
    assert.equal(refused.code, 77);
    assert.match(refused.stderr, /verbs: \["create"\] in namespace shop/);
  });

  it('is one document in JSON, whatever commands it runs', async () => {
    const { stdout } = await play(`${assign} --apply -o json`, bedOf());
    const { done, az: lines } = JSON.parse(stdout) as { done: boolean; az: string[][] };
    assert.deepEqual([done, lines[0]?.[0]], [true, 'vmss']);
    const yaml = await play(`${assign} -o yaml`, bedOf());
    assert.match(yaml.stdout, /^target: context dev, namespace shop\nobjects:\n/);
  });

  it('creates what is not there, and overwrites nothing', async () => {
    const words = `${assign} --selector web --apply`;
    const bindingOf = (spec: object) =>
      bedOf({ [kinds.bindings]: [createBinding('orders', { azureIdentity: 'orders', ...spec })] });
    const { code, stderr, calls } = await play(words, bindingOf({ selector: 'orders' }));
    assert.deepEqual([code, calls], [1, []]);
    assert.equal(
      stderr,
      'error: AzureIdentityBinding shop/orders exists; its spec.selector is "orders", and would be "web"\nChoose another name, or change it yourself: kubectl --context=dev -n shop edit azureidentitybindings.aadpodidentity.k8s.io orders\n',
    );
    const narrower = await play(words, bindingOf({ selector: 'web', serviceAccount: 'robot' }));
    assert.match(narrower.stderr, /is "robot", and would be not set/);
    const blind = { ...bedOf(), forbidden: { [kinds.bindings]: 'all-namespaces' } } as const;
    assert.equal((await play(words, blind)).code, 0);
  });

  it('names the user’s own connection in every command', async () => {
    const words = ['migrate', 'to-workload-identity', '--context', 'prod', '--as', 'a b'];
    const { stdout } = await play(words, bedOf({}));
    assert.match(stdout, /^# kubectl --context=dev '--as=a b' annotate serviceaccount default/m);
  });
});

describe('kubectl nmi identity delete', () => {
  const managed = { type: 0, clientID: clientA, resourceID: ordersId };
  const orders = createIdentity('orders', managed);
  const own = createBinding('orders');
  const bedOf = (identities: readonly RawObject[], bindings: readonly RawObject[]) =>
    boundTestBed({
      nodes: [pool],
      [kinds.identities]: identities,
      [kinds.bindings]: bindings,
    });
  const deleted = (stdout: string) =>
    [...stdout.matchAll(/^# kubectl .*delete (\w+)\.\S+ (\S+) /gm)].map(([, kind, name]) => [
      kind,
      name,
    ]);
  const removal = /^# az vmss identity remove .* --name pool --identities \S+orders$/m;

  it('undoes add and assign, after showing it, and names the pods', async () => {
    const bedded = bedOf([orders], [own]);
    const shown = await play('identity delete orders', bedded);
    assert.deepEqual([shown.code, shown.calls], [0, []]);
    assert.deepEqual(deleted(shown.stdout), [
      ['azureidentitybindings', 'orders'],
      ['azureidentities', 'orders'],
    ]);
    assert.match(shown.stdout, removal);
    assert.match(shown.stdout, /^# Pods that lose it: web\.$/m);
    const done = await play('identity delete orders --apply', { ...bedded, other: () => ok('') });
    assert.deepEqual(
      done.calls.map((words) => words.slice(1, 5)),
      ['bindings', 'identities'].map((kind) => [
        ...['delete', kinds[kind as 'bindings'], 'orders', '--namespace=shop'],
      ]),
    );
  });

  it('keeps an identity that another binding names, and its assignment', async () => {
    const other = createBinding('theirs', { azureIdentity: 'orders', selector: 'x' });
    const { stdout } = await play('identity delete orders', bedOf([orders], [own, other]));
    assert.deepEqual(deleted(stdout), [['azureidentitybindings', 'orders']]);
    assert.match(
      stdout,
      /AzureIdentity shop\/orders is kept: AzureIdentityBinding shop\/theirs uses it/,
    );
    assert.doesNotMatch(stdout, removal);
  });

  const elsewhere = (spec: object) => createIdentity('same', spec, { namespace: 'office' });
  for (const [what, spec, isKept] of [
    ['of the same resource id', { resourceID: `${ordersId.toUpperCase()}/` }, true],
    ['of the same client id', { type: 0, clientID: clientA }, true],
    ['that begins with it', { ...managed, type: 4, application }, true],
    ['that is another', { clientID: clientB }, false],
    ['that is federated', federated, false],
  ] as const) {
    it(`${isKept ? 'keeps' : 'ends'} the assignment beside an AzureIdentity ${what}`, async () => {
      const { stdout } = await play('identity delete orders', bedOf([orders, elsewhere(spec)], []));
      assert.deepEqual(deleted(stdout), [['azureidentities', 'orders']]);
      assert.equal(removal.test(stdout), !isKept);
      assert.equal(stdout.includes('kept: AzureIdentity office/same needs it'), isKept);
    });
  }

  it('keeps the assignment where it cannot see who needs it', async () => {
    const unknown = elsewhere({ resourceID: ordersId.replace('orders', 'x') });
    const byClient = bedOf(
      [createIdentity('orders', { resourceID: ordersId }), elsewhere({ clientID: clientB })],
      [],
    );
    const forbidden = { [kinds.identities]: 'all-namespaces' } as const;
    for (const [recorded, said] of [
      [byClient, /kept: AzureIdentity office\/same needs it/],
      [{ ...bedOf([orders, unknown], []), forbidden }, /kept: you may not list /],
      [bedOf([createIdentity('orders')], []), /kept: the object has no resource id/],
    ] as const) {
      const { stdout } = await play('identity delete orders', recorded);
      assert.match(stdout, said);
      assert.doesNotMatch(stdout, removal);
    }
  });
});

describe('kubectl nmi exception', () => {
  const exceptions = (podLabels: object) =>
    boundTestBed({
      [kinds.exceptions]: [createObject('AzurePodIdentityException', 'agent', { podLabels })],
    });

  it('adds one for the labels, and says what such pods get', async () => {
    const { code, stdout } = await play('exception add new --pod-labels app=a role=b', bed);
    assert.equal(code, 0);
    const made = parse(stdout) as RawObject;
    assert.deepEqual(
      [made['kind'], made['spec']],
      ['AzurePodIdentityException', { podLabels: { app: 'a', role: 'b' } }],
    );
    assert.match(stdout, /^# These pods get every identity that is assigned to the node; /m);
    for (const words of ['app', 'app=a=b', '=a', 'app=a/b', 'app=']) {
      assert.equal((await play(`exception add new --pod-labels ${words}`, bed)).code, 2, words);
    }
  });

  it('deletes one, and names the pods whose requests the agent then decides', async () => {
    const recorded = exceptions({ aadpodidbinding: 'orders' });
    const { stdout } = await play('exception delete agent', recorded);
    assert.match(stdout, /^# Pods whose requests the agent then decides: web\.$/m);
    const { calls } = await play('exception delete agent --apply', {
      ...recorded,
      other: () => ok(''),
    });
    assert.deepEqual(
      calls.map((words) => words.slice(1, 5)),
      [['delete', kinds.exceptions, 'agent', '--namespace=shop']],
    );
    assert.equal((await play('exception delete none', recorded)).code, 1);
  });
});
