import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createFakeAz, ordersId, tenant } from '../../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createIdentity,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../support/recorded-kubectl.ts';

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
  const shop = 'kubectl --context=dev delete azureidentitybindings';

  async function unassign(
    others: readonly ReturnType<typeof createIdentity>[],
    changes: Partial<Recorded> = {},
  ) {
    const testBed = testBedOf({ nodes, [kinds.identities]: [own, ...others] });
    const { code, stdout } = await play(['identity', 'unassign', 'orders'], {
      ...testBed,
      ...changes,
    });
    const deleted = stdout.split('\n').filter((line) => line.startsWith(`# ${shop}`)).length;
    const removed = stdout.split('\n').filter((line) => line.startsWith('# az vmss')).length;
    return { stdout, is: [code, deleted, removed] };
  }

  it('removes the assignment of an identity that nobody else names', async () => {
    const { is } = await unassign([
      other({ type: 0, clientID: clientB, resourceID: ordersId.replace('orders', 'cash') }),
      // A federated identity needs no assignment.
      other({ ...federated, clientID: clientA }, 'web'),
      // The agent refuses to use it.
      other({ type: 0 }, 'empty'),
    ]);
    assert.deepEqual(is, [0, 1, 1]);
  });

  it('keeps the assignment while another object names the same identity', async () => {
    for (const spec of [
      { type: 0, clientID: clientB, resourceID: ordersId.toUpperCase() },
      { type: 0, resourceID: `${ordersId.slice(1)}/` },
      { clientID: ` ${clientA.toUpperCase()}` },
    ]) {
      for (const namespace of ['pay', 'shop']) {
        const { stdout, is } = await unassign([other(spec, namespace)]);
        assert.deepEqual(is, [0, 1, 0], JSON.stringify(spec));
        assert.match(
          stdout,
          new RegExp(
            `# It stays assigned to the scale sets for AzureIdentity ${namespace}/cash\\.`,
          ),
        );
      }
    }
  });

  it('keeps the assignment if it cannot know', async () => {
    const { stdout, is } = await unassign([], {
      forbidden: { [kinds.identities]: 'all-namespaces' },
    });
    assert.deepEqual(is, [0, 1, 0]);
    assert.match(
      stdout,
      /^# .*not known whether another namespace uses the identity.*no right.*resources: \["azureidentities"\], verbs: \["list"\] in a ClusterRole/m,
    );
  });

  it('cannot compare a client id with a resource id', async () => {
    const halves = [
      createIdentity('orders', { type: 0, resourceID: ordersId }),
      other({ type: 0, clientID: clientB }),
    ];
    const testBed = testBedOf({ nodes, [kinds.identities]: halves });
    const { code, stdout } = await play(['identity', 'unassign', 'orders'], testBed);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /AzureIdentity pay\/cash has only a client id, AzureIdentity shop\/orders only a resource id/,
    );
    assert.doesNotMatch(stdout, /az vmss/);
  });
});

describe('kubectl nmi identity assign', () => {
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
      ['identity', 'assign', 'orders'],
      testBedOf({ [kinds.identities]: [createIdentity('orders', federated)] }),
    );
    assert.doesNotMatch(stdout, /vmss/);
    assert.match(stdout, /It is federated: kubectl nmi identity federate orders -n shop/);
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
      (await play(['identity', 'assign', 'orders'], testBedOf({ nodes }))).stdout,
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
      ['identity', 'unassign', 'orders', '--apply', '--yes'],
      ['identity', 'federate', 'orders'],
      ['migrate', 'to-workload-identity', '--apply'],
      ['migrate', 'check', '--run'],
    ];
    const hostile = ['[system]', '@/etc/passwd', '--debug'];
    const specs = hostile.flatMap((text) => [
      { type: 0, clientID: clientA, resourceID: text },
      { type: 3, tenantID: tenant, clientID: text },
      { type: 3, tenantID: tenant, clientID: clientA, resourceID: text },
    ]);
    for (const spec of specs) {
      for (const words of verbs) {
        const az = createFakeAz({ identities: {} });
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
    const add = ['identity', 'add', 'new', '--resource-id', '[system]', '--run'];
    assert.match((await play(add, nothing)).stderr, /is no Azure resource id/);
  });

  it('refuses invalid labels', async () => {
    assert.match(
      (await play(['identity', 'assign', 'orders', '--selector', 'a b'], testBedOf())).stderr,
      /cannot be the value of a label/,
    );
  });
});
