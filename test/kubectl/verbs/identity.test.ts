import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createFakeAz, ordersId, subscription, tenant } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const issuer = ok('{"issuer":"https://oidc.example/1/"}');
const federated = { type: 3, clientID: clientA, tenantID: tenant, resourceID: ordersId };

function testBedOf(
  changes = {},
  az = createFakeAz({ identities: { [ordersId]: clientA } }),
): Recorded {
  return {
    ...boundTestBed(changes),
    other: (program, args) => (program === 'az' ? az.run(args) : issuer),
  };
}

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
    assert.match(stdout, /# Then bind it: kubectl nmi identity assign new -n shop\n$/);
  });

  it('reads the client id with the user’s own az', async () => {
    const { stdout, calls } = await play(
      ['identity', 'add', 'new', '--resource-id', ordersId, '--run'],
      testBedOf(),
    );
    assert.match(stdout, new RegExp(`clientID: ${clientA}`));
    assert.deepEqual(calls, [['az', 'identity', 'show', '--ids', ordersId, '--output', 'json']]);
    const typed = await play(
      ['identity', 'add', 'new', '--type', 'federated', '--resource-id', ordersId, '--run'],
      testBedOf(),
    );
    assert.match(typed.stdout, new RegExp(`type: 3\\n[^]*tenantID: ${tenant}`));
  });

  it('names what is missing, with the line that finds it', async () => {
    const wrong: readonly (readonly [words: readonly string[], said: RegExp, code?: number])[] = [
      [['new', '--resource-id', ordersId], /client id is missing[^]*az identity show --ids/],
      [['new', '--client-id', 'mine'], /client id is missing or is no GUID[^]*az identity list/],
      [['new', '--resource-id', 'orders'], /orders is no Azure resource id/],
      [['New!', '--client-id', clientA], /cannot be the name of an object/],
      [['new', '--type', 'federated', '--client-id', clientA], /type federated needs a tenant/],
      [
        ['new', '--type', 'secret', '--client-id', clientA, '--tenant-id', tenant],
        /needs a Secret/,
      ],
      [
        ['new', '--resource-id', ordersId.replace(/orders$/, 'none'), '--run'],
        /az failed: \(ResourceNotFound\)/,
        1,
      ],
    ];
    for (const [words, said, code = 2] of wrong) {
      const result = await play(['identity', 'add', ...words], testBedOf());
      assert.equal(result.code, code, words.join(' '));
      assert.match(result.stderr, said);
      assert.equal(result.stdout, '');
    }
    const out = createFakeAz({ identities: {}, isLoggedIn: false });
    assert.equal(
      (
        await play(
          ['identity', 'add', 'new', '--resource-id', ordersId, '--run'],
          testBedOf({}, out),
        )
      ).code,
      77,
    );
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
    assert.match(
      (await play(words, testBedOf())).stdout,
      /type: 2\n[^]*clientPassword:\n {4}name: pfx/,
    );
  });
});

describe('kubectl nmi identity list and show', () => {
  it('list shows selectors and pods', async () => {
    const testBed = testBedOf({
      pods: ['a', 'b', 'c', 'd'].map((name) =>
        createPod(name, { labels: { aadpodidbinding: 'orders' } }),
      ),
      [kinds.identities]: [createIdentity('orders'), createIdentity('far', {}, { namespace: 'x' })],
    });
    const { stdout } = await play(['identity', 'list'], testBed);
    assert.match(
      stdout,
      /^NAMESPACE +NAME +TYPE[^\n]+\nshop +orders +user-assigned +431054d5\S+ +orders +a,b,c and 1 more\n$/,
    );
    assert.match((await play(['identity', 'list', '-A'], testBed)).stdout, /^x +far/m);
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
      ['identity', 'list', '-o', 'json'],
      testBedOf({ [kinds.bindings]: bindings }),
    );
    assert.deepEqual(
      (JSON.parse(stdout) as { identities: { pods: string[] }[] }).identities[0]?.pods,
      [],
    );
  });

  it('show is explain', async () => {
    assert.match(
      (await play(['identity', 'show', 'orders'], testBedOf())).stdout,
      /^AzureIdentity shop\/orders\n/,
    );
  });
});

describe('kubectl nmi identity delete and unassign', () => {
  it('names the pods that lose it', async () => {
    const { stdout } = await play(['identity', 'delete', 'orders'], testBedOf());
    assert.equal(
      stdout,
      `# 1 pods lose it: web
# kubectl delete azureidentitybindings.aadpodidentity.k8s.io --namespace=shop orders
# kubectl delete azureidentities.aadpodidentity.k8s.io --namespace=shop orders
`,
    );
    const idle = await play(['identity', 'unassign', 'orders'], testBedOf({ pods: [] }));
    assert.match(
      idle.stdout,
      /^# No node of Azure is visible to you\. For each scale set: az vmss identity remove[^\n]+\n# kubectl delete azureidentitybindings/,
    );
  });

  it('finds no identity with another name', async () => {
    const { code, stderr } = await play(['identity', 'delete', 'none'], testBedOf());
    assert.equal(code, 1);
    assert.match(stderr, /has no AzureIdentity none\nCreate it: kubectl nmi identity add none/);
  });
});

describe('kubectl nmi identity unassign', () => {
  const nodes = [
    {
      metadata: { name: 'n' },
      spec: {
        providerID:
          'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
      },
    },
  ];
  const own = createIdentity('orders', { type: 0, clientID: clientA, resourceID: ordersId });
  const other = (spec: object, namespace = 'pay') => createIdentity('cash', spec, { namespace });
  const all = ['identity', 'unassign', 'orders', '--run', '--apply'];
  const deletes = 'kubectl delete azureidentitybindings';

  async function unassign(
    others: readonly ReturnType<typeof createIdentity>[],
    { words = all, changes = {} }: { readonly words?: readonly string[]; changes?: object } = {},
  ) {
    const az = createFakeAz({ identities: {} });
    const testBed = testBedOf({ nodes, [kinds.identities]: [own, ...others] }, az);
    const played = await play(words, { ...testBed, ...changes });
    const deleted = played.calls.filter((each) => each.join(' ').startsWith(deletes)).length;
    return { ...played, deleted, az: az.lines };
  }
  const removes = (each: { readonly az: readonly string[] }) =>
    each.az.filter((line) => line.startsWith('vmss identity remove')).length;

  it('removes the assignment of an identity that nobody else names', async () => {
    const done = await unassign([
      other({ type: 0, clientID: clientB, resourceID: ordersId.replace('orders', 'cash') }),
      // A federated identity needs no assignment.
      other({ ...federated, clientID: clientA }, 'web'),
      // The agent refuses to use it.
      other({ type: 0 }, 'empty'),
    ]);
    assert.deepEqual([done.code, done.deleted, removes(done)], [0, 1, 1]);
  });

  it('keeps the assignment while another object names the same identity', async () => {
    for (const spec of [
      { type: 0, clientID: clientB, resourceID: ordersId.toUpperCase() },
      { type: 0, resourceID: `${ordersId.slice(1)}/` },
      { clientID: ` ${clientA.toUpperCase()}` },
    ]) {
      for (const namespace of ['pay', 'shop']) {
        const kept = await unassign([other(spec, namespace)]);
        assert.deepEqual([kept.code, kept.deleted, kept.az], [0, 1, []], JSON.stringify(spec));
        assert.match(
          kept.stdout,
          new RegExp(
            `# It stays assigned to the scale sets for AzureIdentity ${namespace}/cash\\.`,
          ),
        );
        const forced = await unassign([other(spec, namespace)], {
          words: [...all, '--ignore-unknown-users'],
        });
        assert.deepEqual([forced.code, forced.az], [0, []]);
      }
    }
    const shown = await unassign([other({ type: 0, resourceID: ordersId })], {
      words: ['identity', 'unassign', 'orders'],
    });
    assert.doesNotMatch(shown.stdout, /az vmss/);
  });

  it('does nothing in Azure if it cannot know, unless that is confirmed', async () => {
    const blind = { forbidden: { [kinds.identities]: 'all-namespaces' } } as const;
    const refused = await unassign([], { changes: blind });
    assert.deepEqual([refused.code, refused.deleted, refused.az], [77, 0, []]);
    assert.match(
      refused.stderr,
      /not known whether another namespace uses the identity[^\n]*no right[^\n]*\n.*resources: \["azureidentities"\], verbs: \["list"\] in a ClusterRole.*--ignore-unknown-users/,
    );
    const shown = await unassign([], { changes: blind, words: ['identity', 'unassign', 'orders'] });
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, /^# .*not known whether another namespace uses the identity/m);
    assert.doesNotMatch(shown.stdout, /az vmss/);
    const confirmed = await unassign([], {
      changes: blind,
      words: [...all, '--ignore-unknown-users'],
    });
    assert.deepEqual([confirmed.code, confirmed.deleted, removes(confirmed)], [0, 1, 1]);
  });

  it('cannot compare a client id with a resource id', async () => {
    const az = createFakeAz({ identities: {} });
    const halves = [
      createIdentity('orders', { type: 0, resourceID: ordersId }),
      other({ type: 0, clientID: clientB }),
    ];
    const testBed = testBedOf({ nodes, [kinds.identities]: halves }, az);
    const { code, stderr } = await play(all, testBed);
    assert.deepEqual([code, az.lines], [1, []]);
    assert.match(
      stderr,
      /AzureIdentity pay\/cash has only a client id, AzureIdentity shop\/orders only a resource id/,
    );
    assert.equal((await play([...all, '--ignore-unknown-users'], testBed)).code, 0);
    assert.equal(az.lines.length, 1);
  });
});

describe('kubectl nmi identity assign', () => {
  it('limits the binding, and gives a role', async () => {
    const words = [
      'identity',
      'assign',
      'orders',
      '--selector',
      'web',
      '--service-account',
      'robot',
      '--role',
      'Reader',
      '--scope',
      `/subscriptions/${subscription}`,
    ];
    const { stdout } = await play(words, testBedOf());
    assert.match(stdout, /selector: web\n {2}serviceAccount: robot\n/);
    assert.match(
      stdout,
      new RegExp(
        `# az role assignment create --assignee ${clientA} --role Reader --scope /subscriptions/`,
      ),
    );
  });

  it('needs no scale set for an identity that is federated', async () => {
    const { stdout } = await play(
      ['identity', 'assign', 'orders'],
      testBedOf({ [kinds.identities]: [createIdentity('orders', federated)] }),
    );
    assert.doesNotMatch(stdout, /vmss/);
    assert.match(stdout, /It is federated: kubectl nmi identity federate orders -n shop/);
  });

  it('runs no command line with a gap in it', async () => {
    const az = createFakeAz({ identities: {} });
    const nodes = [
      {
        metadata: { name: 'n' },
        spec: {
          providerID:
            'azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/0',
        },
      },
    ];
    for (const verb of ['assign', 'unassign']) {
      const { code, stderr } = await play(
        ['identity', verb, 'orders', '--run', '--apply'],
        testBedOf({ nodes }, az),
      );
      assert.equal(code, 2, verb);
      assert.match(stderr, /AzureIdentity orders has no spec\.resourceID/);
    }
    assert.deepEqual(az.lines, []);
    assert.match(
      (await play(['identity', 'assign', 'orders'], testBedOf({ nodes }, az))).stdout,
      /--identities '<resource id of the identity>'/,
    );
  });

  it('refuses incomplete input and invalid labels', async () => {
    assert.equal(
      (await play(['identity', 'assign', 'orders', '--role', 'Reader'], testBedOf())).stderr,
      'error: --role and --scope belong together\nGive both, or none.\n',
    );
    assert.match(
      (await play(['identity', 'assign', 'orders', '--selector', 'a b'], testBedOf())).stderr,
      /cannot be the value of a label/,
    );
  });
});

describe('kubectl nmi identity federate', () => {
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
    const { stdout } = await play(['identity', 'federate', 'orders'], testBed());
    assert.match(
      stdout,
      /# subject system:serviceaccount:shop:robot\n# az identity federated-credential create --name shop-robot .*--issuer https:\/\/oidc\.example\/1\/ .*--audiences api:\/\/AzureADTokenExchangeUSGov\n/,
    );
  });

  it('accepts names if there are no pods yet, and warns of too many', async () => {
    const none = await play(['identity', 'federate', 'orders'], testBed(federated, []));
    assert.equal(none.code, 2);
    assert.match(none.stderr, /no service account is known/);
    const many = Array.from({ length: 21 }, (_, index) => `--service-account=a${index}`);
    assert.match(
      (await play(['identity', 'federate', 'orders', ...many], testBed())).stdout,
      /^# 21 service accounts, and Azure allows 20/,
    );
  });

  it('is for the agent’s account if the identity specifies node', async () => {
    const { stdout } = await play(
      ['identity', 'federate', 'orders'],
      testBed({ ...federated, federation: 'node' }),
    );
    assert.match(stdout, /subject system:serviceaccount:kube-system:default/);
    const elsewhere = await play(
      ['identity', 'federate', 'orders', '--agent-namespace', 'agents'],
      testBed({ ...federated, federation: 'node' }),
    );
    assert.equal(elsewhere.code, 2);
    assert.match(
      elsewhere.stderr,
      /no verified agent is in namespace agents, so .*\nAgents in another namespace need --agent-namespace/,
    );
  });

  it('needs an issuer that Entra ID can read', async () => {
    const { code, stderr } = await play(['identity', 'federate', 'orders'], {
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
