/**
 * The whole agent on a real API server, with identities that their source begins to refuse: what
 * the plugin and the status conditions report while cached tokens last, after them, and after the
 * repair. Without a redirect; tokens live for seconds.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { asRecord } from '../../src/base/json-value.ts';
import { createLogger } from '../../src/base/logger.ts';
import { systemClock } from '../../src/base/time/clock.ts';
import { refusals } from '../../src/nmi/base/answers.ts';
import { startAgent } from '../../src/nmi/agent.ts';
import { parseConfig } from '../../src/nmi/config/config.ts';
import { freePort } from '../../lab/fabric/free-ports.ts';
import type { EntraApplication } from '../../lab/fakes/entra/applications.ts';
import { openFakeEntra, type FakeEntra } from '../../lab/fakes/entra/fake-entra.ts';
import { createNodeIdentity } from '../../lab/fakes/identity.ts';
import { openFakeImds } from '../../lab/fakes/imds/fake-imds.ts';
import { fakeIssuer } from '../../lab/fakes/kube/tokens.ts';
import { openLoopbackPod } from '../../lab/pods/pod-client.ts';
import { certify } from '../../lab/test-bed/services.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openConditionsProcess, setNodes } from './support/conditions-process.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { podAccount, type EntraAgent } from '../support/entra-agent.ts';
import { identityA, identityB } from '../support/loopback-agent.ts';
import { readyIn } from '../support/ready-condition.ts';
import { refusedIdentities, type RefusedIdentity } from '../support/refused-identities.ts';
import { isWithin, sizeOfThisRun } from '../runner/kinds.ts';
import { agent as agentPod, machineOf, putObjects, roleFor, runOn } from './support/plugin.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const agentAccount = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const node = 'node-1';
const pod = { namespace: 'default', name: 'p', ip: '127.0.0.11', node };
const custom = '/apis/aadpodidentity.k8s.io/v1/namespaces/default';
/** Half of it is left when the first refresh fails: several times as long as the plugin takes on a busy machine. */
const lifeMs = 30_000;
/** Each takes some 35 s; `test/unit/nmi/refused-identities.test.ts` has all of them in every run. */
const usual = new Set(['secret-expired', 'binding-elsewhere', 'not-assigned', 'entra-resets']);
const isLong = isWithin('long', sizeOfThisRun());
const rows = refusedIdentities.filter(({ name }) => isLong || usual.has(name));

describeOnNewestVersion('an identity that its source begins to refuse', (cluster) => {
  before(async () => {
    for (const name of ['default', 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(await readFile(join(deploy, 'crds.yaml'), 'utf8'));
    await eventually(async () => cluster().apply(await readFile(join(deploy, 'nmi.yaml'), 'utf8')));
    const federation = await readFile(join(deploy, await rightsOfFederation()), 'utf8');
    await cluster().apply(federation.replaceAll('my-namespace', 'default'));
    const secrets = await readFile(join(deploy, 'rights-secrets.yaml'), 'utf8');
    await cluster().apply(secrets.replaceAll('my-namespace', 'default'));
    const secretRules = "{ apiGroups: [''], resources: [secrets], verbs: [get] }";
    await cluster().apply(roleFor('nmi-conditions', 'kube-system', secretRules, 'default'));
    await cluster().createServiceAccountClient(podAccount);
    await setNodes(cluster(), 1);
    await putObjects(cluster(), agentPod({ account: agentAccount.name }));
    await runPod(cluster().admin, {
      ...pod,
      labels: { aadpodidbinding: 'app' },
      serviceAccountName: podAccount.name,
    });
  });

  /** Before 1.36 they are those of a namespace. */
  async function rightsOfFederation(): Promise<string> {
    const { body } = await cluster().admin.request('GET', '/version');
    const isOld = Number.parseInt(String(asRecord(body)?.['minor']), 10) < 36;
    return isOld ? 'rights-federation-before-1.36.yaml' : 'rights-federation.yaml';
  }

  /** The parts of a test bed that the table changes, with the objects of the real server. */
  async function open() {
    await using opening = new AsyncDisposableStack();
    const { authority, tls } = await certify('127.0.0.1');
    const entra = opening.use(await openFakeEntra({ tls }));
    entra.trustIssuer(cluster().issuer, () => cluster().jwks());
    const imds = opening.use(
      await openFakeImds({
        host: '127.0.0.1',
        port: 0,
        nodeIps: ['127.0.0.1'],
        systemAssigned: createNodeIdentity(),
        userAssigned: [identityA, identityB],
      }),
    );
    for (const each of [entra, imds]) each.setTokenLifetime(lifeMs);
    let written: Promise<unknown> = Promise.resolve();
    const write = (work: () => Promise<unknown>): void => {
      written = written.then(work);
    };
    const put = new Set<string>();
    const pathOf = (kind: string, name: string) =>
      kind === 'Secret'
        ? `/api/v1/namespaces/default/secrets/${name}`
        : `${custom}/${kind === 'AzureIdentity' ? 'azureidentities' : 'azureidentitybindings'}/${name}`;
    const kube = {
      apply(object: object) {
        const {
          uid: _uid,
          creationTimestamp: _made,
          ...metadata
        } = asRecord(asRecord(object)?.['metadata']) ?? {};
        write(() => cluster().applyOverHttp(JSON.stringify({ ...object, metadata })));
        put.add(pathOf(String(asRecord(object)?.['kind']), String(metadata['name'])));
      },
      delete: ({ kind, name }: { kind: string; name: string }) =>
        write(() => cluster().admin.expect('DELETE', pathOf(kind, name))),
      patch: ({ kind, name }: { kind: string; name: string }, change: object) =>
        write(() =>
          cluster().admin.expect('PATCH', pathOf(kind, name), change, {
            contentType: 'application/merge-patch+json',
          }),
        ),
    };
    const ofCluster = (of: EntraApplication): EntraApplication => ({
      ...of,
      federatedCredentials: of.federatedCredentials.map((each) =>
        each.issuer === fakeIssuer ? { ...each, issuer: cluster().issuer } : each,
      ),
    });
    const known: FakeEntra = { ...entra, register: (of) => entra.register(ofCluster(of)) };
    const identityBindings = { tenants: new Map<string, string>(), fault: undefined };
    const bed = { kube, entra: known, imds, authority, identityBindings } as unknown as EntraAgent;
    const owned = opening.move();
    return {
      bed,
      imds,
      entra,
      caPem: authority.certificatePem,
      written: () => written,
      async [Symbol.asyncDispose]() {
        await written;
        for (const path of put) await cluster().admin.request('DELETE', path);
        await owned.disposeAsync();
      },
    };
  }

  /** As its manifests have it, with the token of its pod. */
  async function run({ imds, entra, caPem }: Awaited<ReturnType<typeof open>>) {
    await using opening = new AsyncDisposableStack();
    const path = `/api/v1/namespaces/kube-system/pods/nmi-${node}`;
    const { uid } = (await cluster().admin.expect('GET', path)).metadata;
    const boundTo = { kind: 'Pod', name: `nmi-${node}`, uid } as const;
    const actor = opening.use(
      await cluster().createServiceAccountClient({ ...agentAccount, boundTo }),
    );
    const caFile = join(cluster().folder, 'entra-ca.pem');
    await writeFile(caFile, caPem);
    const port = await freePort();
    const parsed = parseConfig(
      {
        node,
        kubeconfig: actor.kubeconfigPath,
        redirect: 'none',
        'nmi-listen-address': '127.0.0.1',
        'nmi-port': String(port),
        'metadata-ip': '127.0.0.1',
        'metadata-port': String(imds.port),
        'http-probe-port': '0',
        'prometheus-port': '0',
        'entra-ca-file': caFile,
        'entra-authority': entra.authority,
      },
      { NMI_EXPLAIN_SOCKET: 'off' },
    );
    assert.ok(parsed.ok, JSON.stringify(parsed));
    const lines: string[] = [];
    const agent = await startAgent({
      config: parsed.config,
      clock: systemClock,
      log: createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) }),
      stdout: () => true,
      environment: {},
      tuning: {
        bindingGraceMs: 0,
        drainTimeoutMs: 1_000,
        identityEventJitterMs: 0,
        identityBreakMs: 0,
      },
    });
    opening.defer(() => agent.stop());
    const client = opening.use(
      openLoopbackPod({ name: 'p', sourceIp: pod.ip, host: '127.0.0.1', port }),
    );
    const owned = opening.move();
    return {
      fetch: () => ask(client, tokenTarget),
      lines,
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  }

  async function plugin(...words: readonly string[]) {
    const machine = { ...machineOf(cluster()), api: cluster().admin, laterMs: 0 };
    return runOn(machine, [...words, '-n', 'default']);
  }

  /** The code, verdict and exit code of `explain`, and whether `analyze` fails with a finding of it. */
  async function voices({ name, reason }: RefusedIdentity) {
    const explained = await plugin('explain', 'pod', pod.name, '-o', 'json');
    const { verdict, summary } = JSON.parse(explained.stdout) as {
      verdict: string;
      summary: string;
    };
    const analyzed = await plugin('analyze');
    const isFound = analyzed.stdout.includes(`error   AzureIdentity default/${name}: ${reason}\n`);
    return {
      verdict: `${verdict} ${explained.code}: ${summary}`,
      analyze: `${isFound ? 'found' : 'not found'} ${analyzed.code}`,
    };
  }

  for (const row of rows) {
    const { mistake, name, reason } = row;
    it(`is refused by every voice: ${mistake}`, async () => {
      await using opened = await open();
      await row.prepare(opened.bed);
      await opened.written();
      await using agent = await run(opened);
      const kind = reason === 'upstream_down' ? 'not-ready' : 'refused';
      const gets = `${kind} 1: gets ${refusals[reason].status} ${reason}`;
      // A server that is not of AKS has no identity bindings, so such an identity never worked.
      if (name !== 'binding-elsewhere') {
        await eventually(async () => {
          const { status, text } = await agent.fetch();
          assert.equal(status, 200, text);
        }, 20_000);
        const healthy = await voices(row);
        assert.match(healthy.verdict, /^granted 0: /);
        assert.equal(healthy.analyze, 'not found 0');

        row.refuse(opened.bed);
        await opened.written();
        await eventually(async () => {
          // The refresh of a token in use.
          await agent.fetch();
          const { verdict, analyze } = await voices(row);
          assert.match(
            verdict,
            new RegExp(`^${gets} for new tokens; cached ones are valid until \\S+Z$`),
          );
          assert.equal(analyze, 'found 1');
          // What was read of a Secret is used for a minute.
        }, 90_000);
      }

      await eventually(async () => {
        const { status } = await agent.fetch();
        assert.ok(status >= 400, String(status));
        assert.deepEqual(await voices(row), { verdict: gets, analyze: 'found 1' });
      }, 60_000);
      const described = await cluster().kubectl([
        ...['describe', 'pod', pod.name, '--namespace=default'],
      ]);
      assert.match(described, /Warning +\w+ +.*entra-pod-identity\/nmi/);
      {
        // They depend on objects alone.
        await using _ = await openConditionsProcess(cluster());
        const ready = name === 'secret-without-key' ? `False ${reason}` : 'True ok';
        await eventually(async () => {
          const object = await cluster().admin.expect('GET', `${custom}/azureidentities/${name}`);
          assert.equal(readyIn(object['status']), ready);
        }, 20_000);
      }

      // Nobody brings them up to date any more.
      await cluster().admin.expect(
        'PATCH',
        `${custom}/azureidentities/${name}/status`,
        { status: { conditions: [] } },
        { contentType: 'application/merge-patch+json' },
      );
      if (name === 'binding-elsewhere') return;
      row.repair(opened.bed);
      await opened.written();
      await eventually(async () => {
        await agent.fetch();
        const { verdict, analyze } = await voices(row);
        assert.match(verdict, /^granted 0: /);
        assert.equal(analyze, 'not found 0');
      }, 90_000);
    });
  }
});
