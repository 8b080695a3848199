import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { createFakeAz, ordersId } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders', app: 'web' } };
const identity = createIdentity('orders', {
  type: 0,
  clientID: clientA,
  resourceID: ordersId.toUpperCase(),
});
const nodes = ['a', 'b'].map((pool) => ({
  metadata: { name: `node-${pool}`, labels: { agentpool: pool } },
  spec: {
    providerID: `azure:///subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/${pool}/virtualMachines/0`,
  },
}));

function testBedOf(changes = {}, az = createFakeAz({ identities: {} })): Recorded {
  return {
    ...boundTestBed({ nodes, [kinds.identities]: [identity], ...changes }),
    other: (program, args) =>
      program === 'az' ? az.run(args) : ok('{"issuer":"https://oidc.example/"}'),
  };
}

describe('kubectl nmi migrate export-addon', () => {
  it('has the author’s fields, and none of the server or the add-on', async () => {
    const object = {
      ...identity,
      metadata: {
        name: 'orders',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        managedFields: [{}],
        generation: 3,
        labels: { 'addonmanager.kubernetes.io/mode': 'Reconcile', team: 'shop' },
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{}' },
      },
      status: { availableReplicas: 1 },
    };
    const { stdout } = await play(
      ['migrate', 'export-addon'],
      testBedOf({ [kinds.identities]: [object] }),
    );
    const [first, second] = parseAllDocuments(stdout).map((each) => each.toJS() as object);
    assert.deepEqual(first, {
      apiVersion: 'aadpodidentity.k8s.io/v1',
      kind: 'AzureIdentity',
      metadata: { name: 'orders', namespace: 'shop', labels: { team: 'shop' } },
      spec: { type: 0, clientID: clientA, resourceID: ordersId.toUpperCase() },
    });
    assert.equal((second as { kind: string }).kind, 'AzureIdentityBinding');
  });

  it('does not make an empty file', async () => {
    assert.equal((await play(['migrate', 'export-addon', '-n', 'none'], testBedOf())).code, 1);
  });
});

describe('kubectl nmi migrate check', () => {
  it('queries Azure only if permitted, and prints what is missing', async () => {
    const pods = [createPod('web', bound), createAgentPod('node-a')];
    const az = createFakeAz({ identities: {} });
    const quiet = await play(['migrate', 'check'], testBedOf({ pods }, az));
    assert.match(quiet.stdout, /^a +a +1 +1 +unknown; add --run$/m);
    assert.deepEqual(az.lines, []);
    const asked = await play(['migrate', 'check', '--run', '--exit-code'], testBedOf({ pods }, az));
    assert.equal(asked.code, 1);
    assert.match(asked.stdout, /^b +b +1 +0 +1$/m);
    assert.match(asked.stdout, /^az vmss identity assign .*--name a --identities \/SUBSCRIPTIONS/m);
  });

  it('is satisfied when all is assigned and every node has an agent', async () => {
    const az = createFakeAz({ identities: {} });
    for (const name of ['a', 'b'])
      az.run(['vmss', 'identity', 'assign', '--name', name, '--identities', ordersId]);
    const pods = [createPod('web', bound), createAgentPod('node-a'), createAgentPod('node-b')];
    assert.equal(
      (await play(['migrate', 'check', '--run', '--exit-code'], testBedOf({ pods }, az))).code,
      0,
    );
    const idle = await play(['migrate', 'check', '--run'], testBedOf({ pods: pods.slice(1) }, az));
    assert.match(idle.stdout, /0 user-assigned identities are bound to pods/);
  });
});

describe('kubectl nmi migrate plan', () => {
  const old = createAgentPod('node-a', {
    image: 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17',
  });
  it('removes the add-on', async () => {
    const { stdout } = await play(
      ['migrate', 'plan', '--resource-group', 'rg', '--cluster-name', 'c'],
      testBedOf({ pods: [old] }),
    );
    assert.match(
      stdout,
      /^1\. Save the objects: kubectl nmi migrate export-addon -A > pod-identity\.yaml\n/,
    );
    assert.match(stdout, /az aks update --resource-group rg --name c --disable-pod-identity/);
  });

  it('switches a helm release in place, and handles the MIC', async () => {
    const labels = { component: 'nmi', 'app.kubernetes.io/managed-by': 'Helm' };
    const pods = [
      { ...old, metadata: { name: 'nmi-1', namespace: 'kube-system', labels } },
      createPod('mic', { spec: { containers: [{ image: 'x/mic:v1' }] } }),
    ];
    const { stdout } = await play(['migrate', 'plan'], testBedOf({ pods }));
    assert.match(stdout, /^1\. The MIC runs/);
    assert.match(stdout, /nameOverride=aad-pod-identity/);
    assert.doesNotMatch(stdout, /disable-pod-identity/);
  });
});

describe('kubectl nmi migrate to-workload-identity', () => {
  const owner = { kind: 'ReplicaSet', name: 'web-1' };
  const deployment = createObject('Deployment', 'web', {
    selector: { matchLabels: { app: 'web' } },
  });
  it('annotates service accounts, federates them, and labels pod templates', async () => {
    const pods = [
      createPod('web-1', { ...bound, owner, ip: '10.1.0.1' }),
      createPod('web-2', { ...bound, owner, ip: '10.1.0.2' }),
    ];
    const { stdout } = await play(
      ['migrate', 'to-workload-identity'],
      testBedOf({ pods, [kinds.deployments]: [deployment] }),
    );
    assert.match(
      stdout,
      new RegExp(
        `kind: ServiceAccount\\nmetadata:\\n {2}name: default\\n {2}namespace: shop\\n {2}annotations:\\n {4}azure.workload.identity/client-id: ${clientA}\\n`,
      ),
    );
    assert.equal(stdout.match(/patch deployment web/g)?.length, 1);
    assert.match(stdout, /# az identity federated-credential create --name shop-default/);
  });

  it('counts credentials, and names service accounts with several identities', async () => {
    const pods = Array.from({ length: 21 }, (_, index) =>
      createPod(`p${index}`, {
        ...bound,
        ip: `10.1.0.${index + 1}`,
        spec: { serviceAccountName: `a${index}` },
      }),
    );
    const changes = {
      pods,
      [kinds.identities]: [
        identity,
        createIdentity('zebra', { type: 3, clientID: clientB, tenantID: 'contoso.example' }),
      ],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('z', { azureIdentity: 'zebra', selector: 'orders', serviceAccount: 'a0' }),
        createBinding('none', { azureIdentity: 'none', selector: 'orders' }),
      ],
    };
    const { stdout } = await play(['migrate', 'to-workload-identity'], testBedOf(changes));
    assert.match(
      stdout,
      /AzureIdentity orders would have 21 federated credentials, and Azure allows 20/,
    );
    assert.match(stdout, /Service account a0 is used with zebra too/);
    const own = await play(
      ['migrate', 'to-workload-identity'],
      testBedOf({
        ...changes,
        [kinds.bindings]: [createBinding('z', { azureIdentity: 'zebra', selector: 'orders' })],
      }),
    );
    assert.match(own.stdout, /azure\.workload\.identity\/tenant-id: contoso\.example/);
  });

  it('lists the SDKs that agents saw, too old ones first', async () => {
    const clients: Readonly<Record<string, readonly string[] | undefined>> = {
      'web-1': ['azsdk-python-identity/1.25.0'],
      'web-2': ['azsdk-python-identity/1.12.0', 'other'],
      'web-3': ['azsdk-js-identity/4.2.1', 'other'],
      'web-4': undefined,
    };
    const names = Object.keys(clients);
    const testBed = testBedOf({
      pods: [
        ...names.map((name, index) => createPod(name, { ...bound, ip: `10.1.0.${index + 1}` })),
        ...['node-1', 'node-2'].map((node) => createAgentPod(node)),
      ],
    });
    const asked: string[] = [];
    const live = (code: number) =>
      play(['migrate', 'to-workload-identity', '--live'], {
        ...testBed,
        other: (program, args, input) => {
          if (!args.includes('exec')) return testBed.other?.(program, args, input);
          asked.push(args.join(' '));
          const pods = names.map((name) => ({ namespace: 'shop', name, clients: clients[name] }));
          const refused =
            'Error from server (Forbidden): pods "nmi-node-1" is forbidden: User "dev" cannot create resource "pods/exec" in API group "" in the namespace "kube-system"';
          return { code, stdout: JSON.stringify({ kind: 'node', pods }), stderr: refused };
        },
      });
    const { stdout } = await live(0);
    assert.equal(asked.length, 1, 'only the agent of the node where the pods are');
    const lines = stdout.split('\n').filter((line) => line.startsWith('# Pod shop/'));
    assert.deepEqual(lines, [
      '# Pod shop/web-2 uses azure-identity for Python 1.12.0: update it to 1.13.0 or later first.',
      '# Pod shop/web-3: the agent saw requests of something else than an Azure SDK; check its SDK yourself.',
      '# Pod shop/web-4: the agent saw no request of it; check its SDK yourself.',
      '# Pod shop/web-1 uses azure-identity for Python 1.25.0, which is new enough.',
    ]);
    const refused = await live(1);
    assert.equal(refused.code, 0);
    assert.match(
      refused.stdout,
      /# Pod shop\/web-1: no agent reported it;[^]*# Not known: which SDKs .*"pods\/exec"/,
    );

    const { stdout: offline, calls } = await play(['migrate', 'to-workload-identity'], testBed);
    assert.match(offline, /@azure\/identity for JavaScript 3\.2\.0.*Add --live/);
    assert.ok(calls.every((words) => !words.includes('exec')));
  });

  it('tries the exchange first, and changes nothing when Entra ID refuses', async () => {
    const assertion = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl';
    const testBed = testBedOf({ pods: [createPod('web', bound)] });
    const attempt = async (
      status: number,
      words: readonly string[] = ['--tenant-id', 'tenant'],
    ) => {
      const posts: (readonly [url: string, form: Readonly<Record<string, string>>])[] = [];
      const played = await play(['migrate', 'to-workload-identity', '--try', '--apply', ...words], {
        ...testBed,
        other: (program, args, input) => {
          if (args[0] === 'create') return ok(`${assertion}\n`);
          return args[0] === 'apply' ? ok('applied\n') : testBed.other?.(program, args, input);
        },
        post: (url, form) => {
          posts.push([url, form]);
          const body =
            status === 200
              ? { access_token: 'secret-token' }
              : { error: 'invalid_client', error_description: 'AADSTS700213: no record' };
          return Promise.resolve({ status, body: JSON.stringify(body) });
        },
      });
      const isApplied = played.calls.some((each) => each.includes('apply'));
      return { ...played, posts, isApplied };
    };

    const fine = await attempt(200);
    assert.equal(fine.code, 0);
    assert.equal(fine.isApplied, true);
    assert.match(
      fine.stderr,
      /service account shop\/default as AzureIdentity orders: Entra ID gives/,
    );
    const [[url, form] = ['', {}]] = fine.posts;
    assert.equal(url, 'https://login.microsoftonline.com/tenant/oauth2/v2.0/token');
    assert.deepEqual([form['client_id'], form['client_assertion']], [clientA, assertion]);
    assert.ok(
      fine.calls.some((each) => each.join(' ').includes('--audience=api://AzureADTokenExchange')),
    );
    assert.doesNotMatch(fine.stdout + fine.stderr, /eyJ|secret-token/);

    const refused = await attempt(401);
    assert.equal(refused.code, 1);
    assert.equal(refused.isApplied, false);
    assert.match(refused.stderr, /no object was changed.*AADSTS700213.*\n.*federated credentials/);

    const untried = await attempt(200, []);
    assert.equal(untried.isApplied, false);
    assert.match(untried.stderr, /give --tenant-id/);
    assert.deepEqual(untried.posts, []);

    const both = await attempt(200, ['--run']);
    assert.equal(both.code, 2);
    assert.match(both.stderr, /--run first/);
  });

  it('sends no token to an authority that the author of an identity chose', async () => {
    const posts: string[] = [];
    const evil = createIdentity('orders', {
      type: 3,
      clientID: clientA,
      tenantID: 'tenant',
      adEndpoint: 'https://evil.example',
    });
    const { stderr, calls } = await play(['migrate', 'to-workload-identity', '--try'], {
      ...testBedOf({ pods: [createPod('web', bound)], [kinds.identities]: [evil] }),
      post: (url) => {
        posts.push(url);
        return Promise.resolve(undefined);
      },
    });
    assert.deepEqual(posts, []);
    assert.ok(
      calls.every((each) => each[1] !== 'create'),
      'no token is made either',
    );
    assert.match(stderr, /evil\.example, which is not allowed/);
  });

  it('has nothing to do if no pod is bound', async () => {
    assert.match(
      (await play(['migrate', 'to-workload-identity'], testBedOf({ pods: [] }))).stderr,
      /no pod of namespace shop is bound/,
    );
  });
});
