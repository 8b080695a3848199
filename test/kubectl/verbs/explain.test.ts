import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
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
  play,
} from '../support/recorded-kubectl.ts';

const bound = { labels: { aadpodidbinding: 'orders' } };

describe('kubectl nmi explain pod', () => {
  it('reports first what the pod gets', async () => {
    const { code, stdout } = await play(['explain', 'pod', 'web'], boundTestBed());
    assert.equal(code, 0);
    assert.equal(
      stdout,
      `pod shop/web: GRANTED, gets a token of AzureIdentity orders, client id ${clientA} (the only one bound)
  Not checked (1; -v shows why): assignment of the identity in Azure. A token shows it: kubectl nmi test --pod web -n shop
  node        node-1
  account     default
  address     10.244.1.7 is this pod's
  labels      aadpodidbinding=orders
  binding     label "orders"
  bindings    orders → AzureIdentity orders
  identities  AzureIdentity orders, type 0, client id ${clientA}
                from imds
`,
    );
  });

  it('names the pod that the user may not read', async () => {
    const testBed = { ...boundTestBed(), forbidden: { pods: 'everywhere' } as const };
    const own = await play(['explain', 'pod', 'web'], testBed);
    assert.match(own.stderr, /get pod web\b/);
    const named = await play(['explain', 'pod', 'web', '-n', 'shop'], testBed);
    assert.match(named.stderr, /get pod shop\/web\b/);
  });

  it('is about the request of that client id', async () => {
    const words = ['explain', 'pod', 'web', '--client-id', clientB, '--exit-code'];
    const { code, stdout } = await play(words, boundTestBed());
    assert.equal(code, 1);
    assert.match(stdout, /^pod shop\/web: REFUSED, gets 400 selector_not_bound\n/);
  });

  it('is about the request that an SDK in it would make', async () => {
    const env = [{ name: 'AZURE_CLIENT_ID', value: clientB }];
    const pods = [createPod('web', { ...bound, spec: { containers: [{ name: 'main', env }] } })];
    const { stdout } = await play(['explain', 'pod', 'web'], boundTestBed({ pods }));
    assert.match(
      stdout,
      /REFUSED, gets 400 selector_not_bound\n[^]* {2}request {5}client_id 9a0b7c66/,
    );
    assert.equal(
      stdout.match(/^error /gm)?.length,
      2,
      'the agent is missing, and the client id is not bound',
    );
  });

  it('names the test of that request, if a test pod can send it', async () => {
    const hintFor = async (...more: readonly string[]) => {
      const { code, stdout } = await play(['explain', 'pod', 'web', ...more], boundTestBed());
      assert.equal(code, 0);
      return /A token shows it: (.*)/.exec(stdout)?.[1];
    };
    const vault = 'https://vault.azure.net';
    const command = 'kubectl nmi test --pod web -n shop';
    assert.equal(await hintFor('--resource', vault), `${command} --resource ${vault}`);
    assert.equal(await hintFor('--client-id', clientA), undefined, 'the pod does not name it');
    const excepted = boundTestBed({
      [kinds.exceptions]: [
        createObject('AzurePodIdentityException', 'x', { podLabels: bound.labels }),
      ],
    });
    const { stdout } = await play(['explain', 'pod', 'web', '-v'], excepted);
    assert.match(stdout, /GRANTED, gets a token of the node's own identities/);
    assert.match(stdout, /only a token request shows it/);
    assert.doesNotMatch(stdout, /kubectl nmi test/, 'a test pod is not excepted');
  });

  it('exits with 1 unless the pod is granted a token', async () => {
    const explain = ['explain', 'pod', 'web'];
    assert.equal((await play(explain, boundTestBed())).code, 0);
    assert.equal((await play(explain, boundTestBed({ [kinds.identities]: [] }))).code, 1);
  });

  it('reports a node without an agent, and an agent that is not ready', async () => {
    const pods = [createPod('web', bound)];
    const without = await play(['explain', 'pod', 'web'], boundTestBed({ pods }));
    assert.equal(without.code, 1);
    assert.match(without.stdout, /^pod shop\/web: NOT READY, is not served: agent_missing\n/);
    assert.match(without.stdout, /error {3}Node node-1: agent_missing/);
    const unready = boundTestBed({ pods: [...pods, createAgentPod('node-1', { isReady: false })] });
    const { stdout } = await play(['explain', 'pod', 'web'], unready);
    assert.match(
      stdout,
      /NOT READY, is not served: agent_not_ready\n[^]*fix: See why: kubectl -n kube-system logs nmi-node-1 -c nmi/,
    );
  });

  it('reports no missing agent if it cannot know the agents or the node', async () => {
    const hidden = await play(['explain', 'pod', 'web'], {
      ...boundTestBed(),
      forbidden: { pods: 'other-namespaces' },
    });
    assert.equal(hidden.code, 0);
    assert.match(
      hidden.stdout,
      /^pod shop\/web: GRANTED.*\n {2}Not checked .*; options and state of the agents\./,
    );
    const pods = [
      createPod('web', { ...bound, spec: { nodeName: '' }, status: { phase: 'Pending' } }),
    ];
    const pending = await play(['explain', 'pod', 'web'], boundTestBed({ pods }));
    assert.equal(pending.code, 1);
    assert.match(pending.stdout, /^pod shop\/web: NOT READY, gets nothing yet: it is Pending\n/);
    for (const { stdout } of [hidden, pending]) assert.doesNotMatch(stdout, /agent_missing/);
  });

  it('follows the options of the agent on that node', async () => {
    const pods = [
      createPod('web', bound),
      createAgentPod('node-1', { args: ['--strict-identity'] }),
    ];
    const testBed = boundTestBed({
      pods,
      [kinds.identities]: [createIdentity('orders'), createIdentity('b', { clientID: clientB })],
      [kinds.bindings]: [
        createBinding('orders'),
        createBinding('b', { azureIdentity: 'b', selector: 'orders' }),
      ],
    });
    assert.match((await play(['explain', 'pod', 'web'], testBed)).stdout, /400 identity_ambiguous/);
  });

  it('warns of a binding to nothing beside those that work', async () => {
    const bindings = [
      createBinding('orders'),
      createBinding('more', { azureIdentity: 'ORDERS', selector: 'orders' }),
    ];
    const { stdout } = await play(
      ['explain', 'pod', 'web'],
      boundTestBed({ [kinds.bindings]: bindings }),
    );
    assert.match(
      stdout,
      /warning AzureIdentityBinding shop\/more: identity_missing\n.*ORDERS\.\n +- The one there is called "orders"\./,
    );
  });

  it('warns of objects that the agent ignores', async () => {
    const testBed = boundTestBed({
      [kinds.bindings]: [createBinding('orders'), createBinding('bad', { selector: 7 })],
    });
    assert.match(
      (await play(['explain', 'pod', 'web'], testBed)).stdout,
      /warning AzureIdentityBinding shop\/bad: object_unusable/,
    );
  });

  it('names the pods that may be meant', async () => {
    const deployment = createObject('Deployment', 'api', {});
    const testBed = boundTestBed({
      pods: [createPod('api-1'), createPod('web')],
      [kinds.deployments]: [deployment],
    });
    const owner = await play(['explain', 'pod', 'api'], testBed);
    assert.equal(owner.code, 1);
    assert.equal(
      owner.stderr,
      'error: namespace shop has no pod api; there is a Deployment of that name\nName one of its pods: api-1\n',
    );
    assert.match((await play(['explain', 'pod', 'wbe'], testBed)).stderr, /Did you mean web\?/);
    assert.doesNotMatch((await play(['explain', 'pod', 'wxy'], testBed)).stderr, /Did you mean/);
    assert.match(
      (await play(['explain', 'pod', 'something'], testBed)).stderr,
      /kubectl -n shop get pods/,
    );
    assert.match(
      (await play(['explain', 'pod', 'web', '-n', 'nope'], testBed)).stderr,
      /namespace nope does not exist/,
    );
  });

  it('handles pods on the host network and pods without an address', async () => {
    const host = boundTestBed({
      pods: [
        createPod('web', { spec: { hostNetwork: true } }),
        createAgentPod('node-1', { args: ['--redirect=iptables'] }),
      ],
    });
    assert.match(
      (await play(['explain', 'pod', 'web'], host)).stdout,
      /^pod shop\/web: UNKNOWN, gets the answer of the node/,
    );
    const young = boundTestBed({
      pods: [
        createPod('web', { ...bound, status: { podIP: '', podIPs: [] } }),
        createAgentPod('node-1'),
      ],
    });
    assert.match(
      (await play(['explain', 'pod', 'web'], young)).stdout,
      /NOT READY, gets nothing yet: it has no address/,
    );
  });

  it('is not about a pod that an agent would ignore', async () => {
    const { metadata, ...rest } = createPod('web', bound);
    const pods = [{ ...rest, metadata: { ...(metadata as object), uid: 7 } }];
    const { code, stderr } = await play(['explain', 'pod', 'web'], boundTestBed({ pods }));
    assert.equal(code, 1);
    assert.match(stderr, /^error: pod shop\/web cannot be read: an agent would ignore it\n/);
  });

  it('handles excepted pods', async () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'all', { podLabels: { app: 'web' } }),
    ];
    const testBed = boundTestBed({
      pods: [createPod('web', { labels: { app: 'web' } }), createAgentPod('node-1')],
      [kinds.exceptions]: exceptions,
    });
    assert.match(
      (await play(['explain', 'pod', 'web'], testBed)).stdout,
      /node's own identities \(exception all\)/,
    );
  });
});

describe('kubectl nmi explain of a workload', () => {
  const spec = { selector: { matchLabels: { app: 'web' } } };
  const deployment = createObject('Deployment', 'web', spec);
  const owner = { kind: 'ReplicaSet', name: 'web-1' };
  const created = (at: string, name: string, phase = 'Running') => {
    const pod = createPod(name, { labels: { app: 'web' }, owner, status: { phase }, ip: '' });
    return { ...pod, metadata: { ...(pod['metadata'] as object), creationTimestamp: at } };
  };
  const explain = (pods: readonly RawObject[], ...words: readonly string[]) =>
    play(['explain', ...words], boundTestBed({ pods, [kinds.deployments]: [deployment] }));

  it('is about its newest pod that has not ended', async () => {
    const pods = [
      created('2026-11-01T00:00:00Z', 'web-old'),
      created('2026-11-03T00:00:00Z', 'web-done', 'Failed'),
      created('2026-11-02T00:00:00Z', 'web-new'),
      createPod('api', { labels: { app: 'api' }, owner }),
    ];
    const { stdout, stderr } = await explain(pods, 'deploy/web');
    assert.match(stdout, /^pod shop\/web-new: REFUSED, gets 400 no_binding_label\n/);
    assert.equal(stderr, 'Deployment shop/web has 3 pods; this is web-new.\n');
    const ended = await explain(
      [created('2026-11-03T00:00:00Z', 'web-done', 'Failed')],
      'deploy/web',
    );
    assert.match(ended.stdout, /^pod shop\/web-done: NOT READY, has ended/);
    assert.equal(ended.stderr, '');
  });

  it('reports one without pods, and one that does not exist', async () => {
    assert.equal(
      (await explain([], 'deploy', 'web')).stderr,
      'error: Deployment shop/web has no pod\nSee why: kubectl -n shop describe deployment web\n',
    );
    assert.match((await explain([], 'deploy/wbe')).stderr, /no Deployment wbe\nDid you mean web\?/);
    assert.match(
      (await explain([], 'sts/web')).stderr,
      /\nList them: kubectl -n shop get statefulsets\n/,
    );
    const hidden = await play(['explain', 'deploy/web'], {
      ...boundTestBed(),
      forbidden: { [kinds.deployments]: 'everywhere' },
    });
    assert.match(
      hidden.stderr,
      /cannot list deployments\.apps: no right; .*\nName one of its pods instead\./,
    );
  });
});

describe('kubectl nmi explain ip', () => {
  it('finds the pod with the address, and not those on the host network', async () => {
    const node = createPod('proxy', { ip: '10.224.0.4', spec: { hostNetwork: true } });
    const testBed = boundTestBed({
      pods: [createPod('web', bound), node, createAgentPod('node-1')],
    });
    assert.match(
      (await play(['explain', 'ip', '10.244.1.7'], testBed)).stdout,
      /^pod shop\/web: GRANTED/,
    );
    const none = await play(['explain', 'ip', '10.224.0.4'], testBed);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /no pod has the address 10\.224\.0\.4/);
    const own = await play(['explain', 'ip', '10.1.1.1'], {
      ...testBed,
      forbidden: { pods: 'all-namespaces' },
    });
    assert.match(own.stderr, /in namespace shop, the only one that you may list/);
  });

  it('reports no address as free if it cannot see the pods', async () => {
    const forbidden = { pods: 'everywhere' } as const;
    const { code, stderr } = await play(['explain', 'ip', '10.1.1.1'], {
      ...boundTestBed(),
      forbidden,
    });
    assert.equal(code, 77);
    assert.match(stderr, /^error: cannot list pods in namespace shop: /);
    const gone = await play(['explain', 'ip', '10.1.1.1'], {
      ...boundTestBed(),
      missing: ['pods'],
    });
    assert.match(gone.stderr, /^error: cannot list pods: /);
  });

  it('names an ended pod only if no live one has the address', async () => {
    const ended = createPod('a', { ...bound, status: { phase: 'Succeeded' } });
    const pods = [ended, createPod('web', bound), createAgentPod('node-1')];
    const explain = ['explain', 'ip', '10.244.1.7'];
    assert.match((await play(explain, boundTestBed({ pods }))).stdout, /^pod shop\/web: GRANTED/);
    const { stdout } = await play(
      explain,
      boundTestBed({ pods: [ended, createAgentPod('node-1')] }),
    );
    assert.match(stdout, /^pod shop\/a: NOT READY, has ended \(Succeeded\)/);
  });

  it('requires an address', async () => {
    const { code, stderr } = await play(['explain', 'ip', 'web'], boundTestBed());
    assert.equal(code, 2);
    assert.match(stderr, /web is no IP address/);
  });
});
