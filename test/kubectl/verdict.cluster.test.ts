/**
 * The verdicts of `explain` and the findings of `analyze` on a real API server, for a user with the
 * rights of a team: what that user may see as broken is never called granted.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ProgramRun } from '../../src/kubectl/base/io.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openConditionsProcess, setNodes } from '../cluster/support/conditions-process.ts';
import type { Actor } from '../cluster/support/cluster.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { readyIn } from '../support/ready-condition.ts';
import {
  agent,
  binding,
  clientId,
  exception,
  good,
  grant,
  identity,
  otherId,
  pod,
} from './support/mistakes.ts';
import { clearObjects, developerRole, putObjects, secretsRole } from './support/put-objects.ts';
import { runOn, type RealMachine } from './support/real-kubectl.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const kinds = '/apis/aadpodidentity.k8s.io/v1/namespaces/shop';
const tenant = '7e570000-1ab0-4000-8000-000000000001';
const second = `${identity('reports', `type: 0, clientID: ${otherId}`)}${binding('azureIdentity: reports, selector: orders', 'shop', 'reports')}`;
const storage =
  '/subscriptions/7e570000-1ab0-4000-8000-000000000002/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/s';
const deployment = `---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [{ name: app, image: app }] } }
`;
const owner =
  ', ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: web-7d4b9, uid: 7e570000-1ab0-4000-8000-000000000009 }]';

describeOnNewestVersion('kubectl nmi for a team', (cluster) => {
  let admin: RealMachine;
  let developer: Actor;
  let team: RealMachine;
  let calls: (readonly string[])[] = [];

  const run = (as: RealMachine, ...words: readonly string[]) => {
    calls = [];
    return runOn({ ...as, onCall: (args) => calls.push(args) }, words);
  };
  const explain = async (user: RealMachine, ...words: readonly string[]) => {
    const as = { ...user, known: new Map<string, ProgramRun>() };
    const { code, stdout, stderr } = await run(as, 'explain', ...words, '-n', 'shop');
    const json = await run(as, 'explain', ...words, '-n', 'shop', '-o', 'json');
    assert.equal(json.code, code, 'the exit code does not depend on the form of the output');
    const [first = ''] = stdout.split('\n');
    const { verdict } = JSON.parse(json.stdout) as { verdict: string };
    assert.match(first, new RegExp(`: ${verdict.toUpperCase().replace('-', ' ')}, `), stderr);
    return { code, first, stdout, json: json.stdout };
  };
  const only = async (objects: string) => {
    await clearObjects(cluster());
    await putObjects(cluster(), objects);
  };

  before(async () => {
    const { binaries, adminKubeconfig, folder } = cluster();
    const { kubectl } = binaries;
    admin = { kubectl, kubeconfig: adminKubeconfig, home: folder, api: cluster().admin };
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(await readFile(join(deploy, 'crds.yaml'), 'utf8'));
    await eventually(async () => cluster().apply(await readFile(join(deploy, 'nmi.yaml'), 'utf8')));
    await setNodes(cluster(), 1);
    await cluster().apply(developerRole);
    const account = { namespace: 'shop', name: 'developer' };
    developer = await cluster().createServiceAccountClient(account);
    team = { ...admin, kubeconfig: developer.kubeconfigPath, api: developer.api };
  });
  after(() => developer[Symbol.asyncDispose]());

  describe('explain', () => {
    it('grants what it can see, and names in one line what it cannot', async () => {
      await only(good);
      const { code, first, stdout } = await explain(team, 'pod', 'web');
      assert.equal(code, 0);
      assert.match(first, /GRANTED, gets a token of AzureIdentity orders/);
      const lines = stdout.split('\n').filter((line) => /not checked/i.test(line));
      assert.deepEqual(lines, [
        '  Not checked (5; -v shows why): assignment of the identity in Azure; identity grants; refusals of the last hour; network policies; options and state of the agents. A token shows it: kubectl nmi test --pod web -n shop',
      ]);
      const verbose = await run(team, 'explain', 'pod', 'web', '-n', 'shop', '-v');
      assert.match(
        verbose.stdout,
        /\n {2}network policies\n {4}cannot list networkpolicies\.networking\.k8s\.io: no right; RBAC rule: apiGroups: \["networking\.k8s\.io"\], resources: \["networkpolicies"\], verbs: \["list"\] in namespace shop\n/,
      );
    });

    it('starts five processes at most, and lists no pods of other nodes', async () => {
      await only(
        good + deployment + pod({ name: 'web-1', labels: 'app: web', owner, ip: '10.244.1.8' }),
      );
      for (const { kubeconfig } of [admin, team]) {
        const place = ['config', 'set-context', '--current', '--namespace=shop'];
        await cluster().kubectl(place, { kubeconfigPath: kubeconfig });
      }
      for (const as of [admin, team]) {
        for (const [verdict, ...words] of [
          ['GRANTED', 'pod', 'web'],
          ['GRANTED', 'pod', 'web', '-n', 'shop'],
          ['REFUSED', 'pod', 'web-1', '-n', 'shop'],
        ] as const) {
          const { stdout } = await run(as, 'explain', ...words);
          assert.match(stdout, new RegExp(`^pod shop/${words[1]}: ${verdict}`));
          assert.ok(calls.length <= 5, calls.map((args) => args.join(' ')).join('\n'));
          const lists = calls
            .filter(([, what = '']) => /(?:^|[/,])pods\b/.test(what))
            // A name follows.
            .filter((args) => !args.includes('--'));
          assert.ok(lists.length > 0, 'it looks for the agent of the node');
          for (const [, what = ''] of lists)
            assert.match(what, /fieldSelector=spec\.nodeName%3Dnode-1\b/);
        }
      }
      for (const words of [['deploy/web'], ['ip', '10.244.1.8']]) {
        await run(admin, 'explain', ...words, '-n', 'shop');
        assert.ok(calls.length <= 5, calls.map((args) => args.join(' ')).join('\n'));
      }
    });

    it('understands kinds and names as kubectl does', async () => {
      const older = pod({
        name: 'web-1',
        labels: 'app: web',
        owner,
        ip: '10.244.1.8',
        phase: 'Failed',
      });
      await only(good + deployment + older);
      await putObjects(
        cluster(),
        pod({ name: 'web-2', labels: 'app: web', owner, ip: '10.244.1.9' }),
      );
      for (const words of [['pod/web'], ['pods', 'web']]) {
        assert.match(
          (await run(team, 'explain', ...words, '-n', 'shop')).stdout,
          /^pod shop\/web: GRANTED/,
        );
      }
      for (const words of [['deploy/web'], ['deployments.apps', 'web']]) {
        const { stdout, stderr } = await run(admin, 'explain', ...words, '-n', 'shop');
        assert.match(stdout, /^pod shop\/web-2: REFUSED, gets 400 no_binding_label\n/);
        assert.match(stderr, /^Deployment shop\/web has 2 pods; this is web-2\.$/m);
      }
      const everywhere = await run(team, 'explain', 'pod', 'web', '-A');
      assert.deepEqual([everywhere.code, everywhere.stdout], [2, '']);
      assert.match(everywhere.stderr, /^error: unknown flag -A\n/);
    });

    it('is not sure where an option of the agent decides that the user may not see', async () => {
      await only(good + second);
      const { code, first } = await explain(team, 'pod', 'web');
      assert.equal(code, 1);
      assert.match(
        first,
        /UNKNOWN, gets a token of AzureIdentity orders.*; gets 400 identity_ambiguous if the agent has --strict-identity$/,
      );
      await only(good.replace('args: []', "args: ['--redirect=iptables']") + second);
      assert.match((await explain(admin, 'pod', 'web')).first, /GRANTED, /);
    });

    it('invents no redirect', async () => {
      const host = pod({ spec: ', hostNetwork: true', ip: '10.224.0.9' });
      await only(host + identity() + binding() + agent());
      const { first, json } = await explain(admin, 'pod', 'web');
      assert.match(
        first,
        /UNKNOWN, gets a token .*; gets the answer of the node \(host network\) if the agent has --redirect=iptables$/,
      );
      const { explanation } = JSON.parse(json) as {
        explanation: { node: { redirect: { mode: string } } };
      };
      assert.equal(explanation.node.redirect.mode, 'unknown');
    });

    it('has a pod that cannot be served as not ready', async () => {
      const rest = identity() + binding() + agent();
      const pods: readonly (readonly [objects: string, first: RegExp])[] = [
        [pod() + identity() + binding(), /NOT READY, is not served: agent_missing$/],
        [
          pod() + identity() + binding() + agent({ ready: 'False' }),
          /NOT READY, is not served: agent_not_ready$/,
        ],
        [
          pod({ phase: 'Succeeded' }) + rest,
          /NOT READY, has ended \(Succeeded\) and sends no requests$/,
        ],
        [pod({ phase: 'Failed' }) + rest, /NOT READY, has ended \(Failed\) and sends no requests$/],
        [pod({ phase: 'Pending' }) + rest, /NOT READY, gets nothing yet: it is Pending$/],
        [
          pod({ spec: ', os: { name: windows }' }) + rest,
          /NOT READY, is not served: pod_on_windows$/,
        ],
      ];
      for (const [objects, expected] of pods) {
        await only(objects);
        const { code, first, stdout } = await explain(admin, 'pod', 'web');
        assert.equal(code, 1);
        assert.match(first, expected);
        assert.doesNotMatch(stdout, /passes by itself/);
      }
    });

    it('names the live pod of an address', async () => {
      const ended = pod({ name: 'a-done', phase: 'Succeeded' });
      await only(ended + good);
      assert.match((await explain(admin, 'ip', '10.244.1.7')).first, /^pod shop\/web: GRANTED/);
      await only(ended + identity() + binding() + agent());
      assert.match(
        (await explain(admin, 'ip', '10.244.1.7')).first,
        /^pod shop\/a-done: NOT READY, has ended/,
      );
    });

    it('leaves open what only Entra ID knows of a federated identity', async () => {
      const spec = `type: 3, clientID: ${clientId}, tenantID: ${tenant}`;
      await only(pod() + identity('orders', spec) + binding() + agent());
      const { code, stdout } = await explain(team, 'pod', 'web');
      assert.equal(code, 0);
      assert.match(
        stdout,
        /\n {2}Not checked \(\d; -v shows why\): federated credential in Entra ID; /,
      );
    });

    it('refuses a resource id of another provider that was stored before the definitions refused it', async () => {
      await only(good);
      const name = 'stored';
      await cluster().copy('aadpodidentity.k8s.io/azureidentities', 'shop', 'orders', [
        { name, spec: { clientID: undefined, resourceID: storage } },
      ]);
      await putObjects(
        cluster(),
        binding(`azureIdentity: ${name}, selector: stored`, 'shop', name) +
          pod({ name, labels: 'aadpodidbinding: stored', ip: '10.244.1.8' }),
      );
      const { code, first } = await explain(team, 'pod', name);
      assert.equal(code, 1);
      assert.match(first, /REFUSED, gets 400 identity_invalid$/);
      const { stdout } = await run(team, 'analyze', '-n', 'shop');
      assert.match(stdout, /error {3}AzureIdentity shop\/stored: identity_invalid\n/);
    });

    it('reads the status, where it shows a missing Secret, one without a usable key, or a missing grant', async () => {
      await only(good);
      await cluster().apply(grant.replace(`${clientId}, ${otherId}`, clientId));
      const secret = `type: 1, clientID: ${clientId}, tenantID: ${tenant}, clientPassword: { name: sp, namespace: shop }`;
      const stranger = `type: 0, clientID: ${otherId}`;
      const keyless = secret.replace('name: sp', 'name: keyless');
      const data = { password: 'eA==', secret: 'eA==' };
      const kept = { kind: 'Secret', metadata: { name: 'keyless', namespace: 'shop' }, data };
      await cluster().apply(JSON.stringify({ apiVersion: 'v1', ...kept }));
      for (const [name, spec, ip] of [
        ['secret', secret, '10.244.1.8'],
        ['keyless', keyless, '10.244.1.10'],
        ['stranger', stranger, '10.244.1.9'],
      ] as const) {
        await putObjects(
          cluster(),
          identity(name, spec) +
            binding(`azureIdentity: ${name}, selector: ${name}`, 'shop', name) +
            pod({ name, labels: `aadpodidbinding: ${name}`, ip }),
        );
      }
      await cluster().apply(secretsRole);
      await using _ = await openConditionsProcess(cluster(), { 'identity-owners': 'enforce' });
      const reasons = {
        secret: 'credential_missing',
        keyless: 'credential_invalid',
        stranger: 'identity_not_owned',
      };
      const { stdout: analyzed } = await eventually(async () => {
        for (const [name, reason] of Object.entries(reasons)) {
          const { status } = await cluster().admin.expect(
            'GET',
            `${kinds}/azureidentities/${name}`,
          );
          assert.equal(readyIn(status), `False ${reason}`);
        }
        return run(team, 'analyze', '-n', 'shop');
      }, 30_000);
      for (const [name, reason] of Object.entries(reasons)) {
        const { code, first, stdout } = await explain(team, 'pod', name);
        assert.equal(code, 1);
        assert.match(first, new RegExp(`REFUSED, gets 400 ${reason}$`));
        assert.match(stdout, new RegExp(`error {3}AzureIdentity shop/${name}: ${reason}\\n`));
        assert.match(analyzed, new RegExp(`error {3}AzureIdentity shop/${name}: ${reason}\\n`));
      }
      await eventually(async () => {
        const { status } = await cluster().admin.expect('GET', `${kinds}/azureidentities/orders`);
        assert.equal(readyIn(status), 'True ok');
      }, 30_000);
      const { stdout } = await explain(team, 'pod', 'web');
      assert.doesNotMatch(stdout, /identity grants/, 'its status shows that it has one');
    });
  });

  describe('analyze', () => {
    const analyze = (...words: readonly string[]) => run(admin, 'analyze', '-n', 'shop', ...words);

    it('fails on errors, or on what the user names', async () => {
      await only(good);
      assert.equal((await analyze()).code, 0);
      await only(pod() + agent());
      assert.equal((await analyze()).code, 1);
      assert.equal((await analyze('--fail-on', 'none')).code, 0);
      await only(good + exception('app: proxy'));
      const { code, stdout } = await analyze('--fail-on', 'warning');
      assert.deepEqual([code, /info {4}.*exception_unused/.test(stdout)], [0, true]);
      assert.equal((await analyze('--fail-on', 'info')).code, 1);
    });

    it('uses the options of the agent of each pod', async () => {
      const strict = agent({ args: '--strict-identity', node: 'node-2' });
      await only(good + second + strict + pod({ name: 'api', node: 'node-2', ip: '10.244.2.7' }));
      const { code, stdout } = await analyze();
      assert.equal(code, 1);
      assert.match(stdout, /^error {3}Pod shop\/api: identity_ambiguous$/m);
      assert.match(stdout, /^info {4}Pod shop\/web: identity_by_age$/m);
      assert.doesNotMatch(stdout, /Pod shop\/web: identity_ambiguous/);
    });

    it('has the nodes of the pods, and broad exceptions', async () => {
      const names = ['b', 'c', 'd'];
      const others = names.map((name, at) =>
        pod({ name, labels: 'app: all', ip: `10.244.1.${20 + at}` }),
      );
      await only(pod() + identity() + binding() + others.join('') + exception('app: all'));
      const { stdout } = await analyze();
      assert.match(stdout, /^error {3}Node node-1: agent_missing$/m);
      assert.match(stdout, /exception_broad\n +It matches 3 of the 4 pods of namespace shop/);
    });

    it('calls a binding that may be on its way not yet missing, and names the slip', async () => {
      await only(pod({ labels: 'aadpodidbinding: oders' }) + identity() + binding() + agent());
      const { code, stdout } = await runOn({ ...admin, laterMs: 0 }, ['analyze', '-n', 'shop']);
      assert.equal(code, 0);
      assert.match(
        stdout,
        /^warning Pod shop\/web: binding_pending\n.*It may be on its way\. \(HTTP 503, Retry-After 2s\)\n[^]*fix: Did you mean "orders"\?/m,
      );
      const { stdout: explained } = await runOn({ ...admin, laterMs: 0 }, [
        'explain',
        'pod',
        'web',
        '-n',
        'shop',
      ]);
      assert.match(explained, /^pod shop\/web: NOT READY, gets 503 binding_pending: not yet\n/);
    });
  });
});
