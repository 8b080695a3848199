/** Which pod, which request, and the exit code. What is reported about a pod is in test/situations. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord } from '../../../../src/base/json-value.ts';
import type { RawObject } from '../../../../src/kubectl/base/object.ts';
import {
  bound,
  boundTestBed,
  clientA,
  clientB,
  createAgentPod,
  createObject,
  createPod,
  kinds,
  play,
  type Recorded,
} from '../recorded-kubectl.ts';

const agent = createAgentPod('node-1');
const bed = boundTestBed();
const withPods = (...pods: readonly RawObject[]) => boundTestBed({ pods });
const granted = /^pod shop\/web: GRANTED/;

describe('the arguments of kubectl nmi explain', () => {
  it('are understood as those of kubectl', async () => {
    for (const words of ['pod web', 'pods web', 'po web', 'pod/web', 'Pods/web']) {
      const { code, stdout, reads } = await play(`explain ${words}`, bed);
      assert.equal(code, 0);
      assert.match(stdout, granted);
      // Each start of kubectl takes 0.1 s of processor time.
      assert.ok(reads <= 5, `${reads} calls of kubectl`);
    }
  });

  const hidden = (kind: string, how: 'everywhere' | 'all-namespaces' = 'everywhere') => ({
    ...bed,
    forbidden: { [kind]: how },
  });
  const host = createPod('proxy', { ip: '10.224.0.4', spec: { hostNetwork: true } });
  const api = boundTestBed({
    pods: [createPod('api-1'), createPod('web'), host],
    [kinds.deployments]: [createObject('Deployment', 'api', {})],
  });
  const web = createPod('web', bound);
  const ignored = { ...web, metadata: { ...asRecord(web['metadata']), uid: 7 } };
  const refusals: readonly (readonly [
    words: string,
    code: number,
    said: RegExp,
    bed?: Recorded,
  ])[] = [
    ['', 2, /^error: explain needs <what>\n/],
    ['pod', 2, /^error: explain pod needs a name\nWrite: kubectl nmi explain pod NAME\n$/],
    ['pod/', 2, /^error: explain pod needs a name\n/],
    ['pod/web api', 2, /^error: explain takes one object\n/],
    ['pod/web/api', 2, /^error: explain takes one object\n/],
    ['node x', 2, /^error: explain knows no kind node\nName a pod, deployment,/],
    ['web', 2, /^error: explain knows no kind web\n/],
    ['constructor web', 2, /^error: explain knows no kind constructor\n/],
    ['ip web', 2, /web is no IP address/],
    [
      'pod api',
      1,
      /^error: namespace shop has no pod api; there is a Deployment of that name\nName one of its pods: api-1\n$/,
    ],
    ['pod wbe', 1, /Did you mean web\?/],
    ['pod wxy', 1, /^(?![^]*Did you mean)/],
    ['pod something', 1, /kubectl -n shop get pods/],
    ['pod web -n nope', 1, /namespace nope does not exist/],
    ['pod web', 1, /cannot be read: an agent would ignore it\n/, withPods(ignored)],
    ['pod web', 77, /get pod web\b/, hidden('pods')],
    ['pod web -n shop', 77, /get pod shop\/web\b/, hidden('pods')],
    ['deploy web', 1, /no Deployment web\n/],
    ['deploy/apii', 1, /no Deployment apii\nDid you mean api\?/],
    ['sts/web', 1, /\nList them: kubectl -n shop get statefulsets\n/],
    [
      'deploy/web',
      1,
      /cannot list deployments\.apps: no right; .*\nName one of its pods instead\./,
      hidden(kinds.deployments),
    ],
    ['ip 10.224.0.4', 1, /no pod has the address 10\.224\.0\.4/],
    [
      'ip 10.1.1.1',
      1,
      /in namespace shop, the only one that you may list/,
      hidden('pods', 'all-namespaces'),
    ],
    // No address is called free by a user who cannot see the pods.
    ['ip 10.1.1.1', 77, /^error: cannot list pods in namespace shop: /, hidden('pods')],
    ['ip 10.1.1.1', 1, /^error: cannot list pods: /, { ...bed, missing: ['pods'] }],
  ];
  for (const [words, expected, said, recorded = api] of refusals) {
    it(`are refused with the reason: ${words}, exit code ${expected}`, async () => {
      const { code, stdout, stderr } = await play(`explain ${words}`.trim(), recorded);
      assert.deepEqual([code, stdout], [expected, '']);
      assert.match(stderr, said);
    });
  }
});

describe('kubectl nmi explain', () => {
  const withEnv = createPod('web', {
    ...bound,
    spec: { containers: [{ name: 'main', env: [{ name: 'AZURE_CLIENT_ID', value: clientB }] }] },
  });
  const ended = createPod('a', { ...bound, status: { phase: 'Succeeded' } });
  const unplaced = { ...bound, spec: { nodeName: '' }, status: { phase: 'Pending' } };
  const agents = { ...bed, forbidden: { pods: 'other-namespaces' } } as const;
  const bindings = { [kinds.bindings]: [] };
  const labels = { ...bound.labels, 'azure.workload.identity/use': 'true' };
  const doubled = withPods(createPod('web', { ...bound, labels }), agent);
  for (const [what, words, recorded, code, said] of [
    ['a granted pod', 'pod web', bed, 0, granted],
    ['a refused pod', 'pod web', boundTestBed(bindings), 1, /REFUSED/],
    ['a refused pod, leniently', 'pod web --fail-on=never', boundTestBed(bindings), 0, /REFUSED/],
    ['a granted pod, strictly', 'pod web --fail-on=warning', bed, 0, granted],
    ['a pod with a warning', 'pod web', doubled, 0, granted],
    ['that pod, strictly', 'pod web --fail-on=warning', doubled, 1, granted],
    ['that client id', `pod web --client-id ${clientB}`, bed, 1, /400 selector_not_bound\n/],
    [
      'the request of an SDK in the pod',
      'pod web',
      withPods(withEnv, agent),
      1,
      /REFUSED, gets 400 selector_not_bound\n[^]* {2}request {5}client_id 9a0b7c66/,
    ],
    // The agents, or the node, are not known.
    [
      'a pod of others',
      'pod web',
      agents,
      0,
      /^(?![^]*agent_missing)[^]*\n {2}Not checked .*; options and state of the agents\./,
    ],
    [
      'a pod without a node',
      'pod web',
      withPods(createPod('web', unplaced)),
      1,
      /^(?![^]*agent_missing)/,
    ],
    ['an address', 'ip 10.244.1.7', withPods(ended, createPod('web', bound), agent), 0, granted],
    [
      'an address of an ended pod',
      'ip 10.244.1.7',
      withPods(ended, agent),
      1,
      /^pod shop\/a: NOT READY, has ended/,
    ],
    [
      'a shared address',
      'ip 10.244.1.7',
      withPods(createPod('web', bound), createPod('twin', bound), agent),
      1,
      /pod_ambiguous\n[^]*^ +fix: Delete the pod that should not have it/m,
    ],
  ] as const) {
    it(`is about ${what}`, async () => {
      const played = await play(`explain ${words}`, recorded);
      assert.equal(played.code, code, played.stderr);
      assert.match(played.stdout, said);
    });
  }

  it('names the test of that request, if a test pod can send it', async () => {
    const command = 'kubectl nmi test --pod web -n shop';
    for (const [flags, expected] of [
      ['', command],
      [' --resource https://x', `${command} --resource https://x`],
      // The pod does not name it.
      [` --client-id ${clientA}`, undefined],
    ] as const) {
      const { stdout } = await play(`explain pod web${flags}`, bed);
      assert.equal(/A token shows it: (.*)/.exec(stdout)?.[1], expected);
    }
    const exception = createObject('AzurePodIdentityException', 'x', { podLabels: bound.labels });
    const excepted = boundTestBed({ [kinds.exceptions]: [exception] });
    const { stdout } = await play('explain pod web -v', excepted);
    assert.match(
      stdout,
      /GRANTED, gets a token of the node's own identities[^]*only a token request/,
    );
    assert.doesNotMatch(stdout, /kubectl nmi test/, 'a test pod is not excepted');
  });

  it('of a workload is about its newest pod that has not ended', async () => {
    const spec = { selector: { matchLabels: { app: 'web' } } };
    const owner = { kind: 'ReplicaSet', name: 'web-1' };
    const created = (day: number, name: string, phase = 'Running') => {
      const pod = createPod(name, { labels: { app: 'web' }, owner, status: { phase }, ip: '' });
      const creationTimestamp = `2026-11-0${day}T00:00:00Z`;
      return { ...pod, metadata: { ...asRecord(pod['metadata']), creationTimestamp } };
    };
    const explain = (words: string, ...pods: readonly RawObject[]) =>
      play(
        `explain ${words}`,
        boundTestBed({ pods, [kinds.deployments]: [createObject('Deployment', 'web', spec)] }),
      );
    const done = created(3, 'web-done', 'Failed');
    const other = createPod('api', { labels: { app: 'api' }, owner });
    const pods = [created(1, 'web-old'), done, created(2, 'web-new'), other];
    const { stdout, stderr } = await explain('deploy/web', ...pods);
    assert.match(stdout, /^pod shop\/web-new: REFUSED, gets 400 no_binding_label\n/);
    assert.equal(stderr, 'Deployment shop/web has 3 pods; this is web-new.\n');
    const one = await explain('deploy/web', done);
    assert.match(one.stdout, /^pod shop\/web-done: NOT READY, has ended/);
    assert.equal(one.stderr, '');
    const none = await explain('deploy web');
    const why = 'See why: kubectl -n shop describe deployment web';
    assert.equal(none.stderr, `error: Deployment shop/web has no pod\n${why}\n`);
  });

  it('has the refusal of a source in JSON, and names Events that it may not list', async () => {
    const hidden = { ...bed, forbidden: { events: 'everywhere' } } as const;
    const { stdout } = await play('explain pod web -v', hidden);
    assert.match(
      stdout,
      /\n {2}refusals of the last hour\n {4}cannot list events \(kubectl get events -n shop --field-selector=reportingComponent=entra-pod-identity\/nmi\): no right; RBAC rule: .*\["events"\]/,
    );
    const json = await play('explain pod web -o json', boundTestBed(bindings));
    const { verdict, findings } = JSON.parse(json.stdout) as Record<string, unknown>;
    assert.deepEqual([json.code, verdict], [1, 'refused']);
    assert.match(JSON.stringify(findings), /"code":"binding_missing"/);
  });
});
