/**
 * The node lab with a real API server instead of the fake: run inside the azure namespace, with the
 * fabric's prefix, a version of Kubernetes and the redirects to try. The installation follows the
 * README; pods request tokens through the redirect. Fails with an exit code.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AgentProcess } from '../../../lab/test-bed/agent-process.ts';
import { createEntraApplication } from '../../../lab/fakes/entra/applications.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { attachFabric, fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { openFakeEntra, type FakeEntra } from '../../../lab/fakes/entra/fake-entra.ts';
import { openFakeImds, type FakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import { createLabAuthority } from '../../../lab/fakes/authority.ts';
import { openLabCgroups, type LabCgroups } from '../../../lab/fabric/cgroups.ts';
import { createLabIdentity, createNodeIdentity } from '../../../lab/fakes/identity.ts';
import { LabPod } from '../../../lab/pods/pod.ts';
import { openFabricPod } from '../../../lab/pods/pod-client.ts';
import { agentCommand } from '../../support/agent-command.ts';
import {
  daemonSetOf,
  objectsOf,
  renderChart,
  specOf,
  type KubeObject,
} from '../../deploy/chart-render.ts';
import { provideCluster, provideHelm, provideOlderCluster } from './binaries.ts';
import { startCluster } from './cluster.ts';
import { renderKubeconfig } from './kubeconfig.ts';
import { deletePod, runPod, setPodStatus } from './pods.ts';

const root = join(import.meta.dirname, '../../..');
const { imdsIp, azureIp, nodeIp } = fabricAddresses;
const agentAccount = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const node = 'lab-node';
const probePort = 8085;
const audience = 'api://AzureADTokenExchange';

const [prefix = '', version = '', ...redirects] = process.argv.slice(2);
const fabric = attachFabric(prefix);
const binaries = [provideCluster(), provideOlderCluster()].find(
  (each) => each?.programs?.version === version,
)?.programs;
const helm = provideHelm().programs;
assert.ok(binaries !== undefined && helm !== undefined);
const readme = await readFile(join(root, 'README.md'), 'utf8');
const install = await readFile(join(root, 'docs/install.md'), 'utf8');

let lastLine = '';

await using stack = new AsyncDisposableStack();
// The agent is in another namespace than the server's loopback address.
const cluster = stack.use(await startCluster(binaries, ['--bind-address=0.0.0.0']));
const authority = await createLabAuthority();
const imds = stack.use(
  await openFakeImds({
    host: imdsIp,
    port: 80,
    nodeIps: [nodeIp],
    systemAssigned: createNodeIdentity(),
  }),
);
const entra = stack.use(
  await openFakeEntra({ host: azureIp, tls: await authority.issueServer([azureIp]) }),
);
const entraCaPath = join(cluster.folder, 'entra-ca.pem');
await writeFile(entraCaPath, authority.certificatePem);

const checkout = createLabIdentity('checkout');
imds.assign(checkout);
const vault = createEntraApplication('vault', { secrets: [{ value: 'a secret' }] });
entra.register(vault);
await installAgent();
for (const redirect of redirects) await tryRedirect(redirect);

/** Installed as in the documentation and the chart, with the programs that people use. */
async function installAgent(): Promise<void> {
  runShell(firstMatch(install, /```sh\n(kubectl apply -f deploy\/crds\.yaml\n.*?)```/s));
  await cluster.kubectl(['apply', '-f', join(root, 'deploy/rights-federation.yaml')]);
  for (const namespace of ['shop', 'team-a']) await cluster.createNamespace(namespace);

  const federated = firstMatch(readme, /```yaml\n(apiVersion: aadpodidentity.*?)```/s);
  await cluster.apply(federated);
  const spec = specOf(objectsOf(federated), 'AzureIdentity');
  const { clientID, tenantID } = spec as { clientID: string; tenantID: string };
  const subject = 'system:serviceaccount:team-a:default';
  entra.register({
    ...createEntraApplication('reports'),
    clientId: clientID,
    tenantId: tenantID,
    federatedCredentials: [{ issuer: cluster.issuer, subject, audience }],
  });
  // What any party that trusts the cluster would do: read the keys that its server publishes.
  entra.trustIssuer(cluster.issuer, () => cluster.jwks());

  const { clientId, resourceId } = checkout;
  const azureIdentities = {
    checkout: {
      namespace: 'shop',
      type: 0,
      clientID: clientId,
      resourceID: resourceId,
      binding: { selector: 'checkout' },
    },
    vault: {
      namespace: 'shop',
      type: 1,
      clientID: vault.clientId,
      tenantID: vault.tenantId,
      clientPassword: { name: 'vault' },
      binding: { selector: 'vault' },
    },
  };
  const flags = ['--show-only=templates/identities.yaml'];
  await cluster.apply(renderChart({ helm: helm ?? '', values: { azureIdentities }, flags }));
  const secret = ['--namespace=shop', 'create', 'secret', 'generic', 'vault'];
  await cluster.kubectl([...secret, '--from-literal=clientSecret=a secret']);
}

/** One agent, started as the DaemonSet in the API server specifies. */
async function tryRedirect(redirect: string): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const cgroups = redirect === 'ebpf' ? opened.use(openLabCgroups()) : undefined;
  const pods = opened.use(createPods(cgroups));
  const agent = opened.use(await openAgent(cgroups));
  await agent.start([
    ...(await agentArguments()),
    ...[`--entra-ca-file=${entraCaPath}`, `--entra-authority=${entra.authority}`],
    ...[`--redirect=${redirect}`, `--prometheus-port=${probePort}`],
  ]);
  const leaksBefore = imds.leaks();

  const bound = await pods.open('shop', 'checkout', { aadpodidbinding: 'checkout' });
  await untilIdentity(bound, 'checkout');
  assert.deepEqual(lastRequester(imds), { from: nodeIp, identity: 'checkout' });

  const federated = await pods.open('team-a', 'reports', { aadpodidbinding: 'reports' });
  await untilIdentity(federated, 'reports');
  assert.deepEqual(lastCredential(entra), {
    credential: 'federated',
    subject: 'system:serviceaccount:team-a:default',
    status: 200,
  });

  const unbound = await pods.open('team-a', 'unbound', { aadpodidbinding: 'checkout' });
  await agentKnowsPods(agent, 4);
  await assertUnbound(unbound);

  // The exception contained in the manifest.
  const addOn = await pods.open('kube-system', 'add-on', {
    'kubernetes.azure.com/managedby': 'aks',
  });
  await untilIdentity(addOn, 'node');

  const withSecret = await pods.open('shop', 'vault', { aadpodidbinding: 'vault' });
  await agentKnowsPods(agent, 6);
  if (redirect === redirects[0]) {
    const refused = await withSecret.ask();
    assert.match(refused.text, /may not read Secret shop\/vault: its service account needs a role/);
    const rights = await readFile(join(root, 'deploy/rights-secrets.yaml'), 'utf8');
    await cluster.apply(rights.replaceAll('my-namespace', 'shop'));
  }
  // The agent retries by itself, some seconds after a refusal.
  await untilIdentity(withSecret, 'vault');

  const binding = ['--namespace=shop', 'azureidentitybinding/checkout-binding'];
  const yaml = await cluster.kubectl(['get', ...binding, '--output=yaml']);
  await cluster.kubectl(['delete', ...binding]);
  await eventually(() => assertUnbound(bound));
  await cluster.apply(yaml.replaceAll(/^ {2}(?:uid|resourceVersion): .*\n/gm, ''));
  await untilIdentity(bound, 'checkout');

  assert.equal(imds.leaks(), leaksBefore, 'a pod got a token that bypassed the agent');
  assert.deepEqual(
    imds.requests().filter(({ from }) => from !== nodeIp),
    [],
  );
  assert.equal(await agent.stop(), 0);
  process.stdout.write(`${redirect}: held\n`);
}

async function untilIdentity(pod: LabPod, identity: string): Promise<void> {
  await eventually(async () => {
    const { status, text, identity: got } = await pod.ask();
    assert.equal(got, identity, `${pod.name}: ${status} ${got === undefined ? text : got}`);
  }, 15_000);
}

/** For a young pod the agent answers "retry": its binding may be on its way. */
async function assertUnbound(pod: LabPod): Promise<void> {
  const { status, text } = await pod.ask();
  assert.ok([400, 503].includes(status), `${status} ${text}`);
  assert.ok(text.includes(`no AzureIdentityBinding in namespace ${pod.namespace} `), text);
}

async function agentKnowsPods(agent: AgentProcess, count: number): Promise<void> {
  await eventually(async () => {
    assert.equal(await agent.metric('nmi_index_pods{kind="all"}'), count);
  });
}

function lastRequester(service: FakeImds): object {
  const { from, identity } = service.requests().findLast((each) => each.identity) ?? {};
  return { from, identity };
}

function lastCredential(service: FakeEntra): object {
  const { credential, subject, status } = service.requests().at(-1) ?? {};
  return { credential, subject, status };
}

/** With a token of its service account that is bound to its pod, and no other permission. */
async function openAgent(cgroups: LabCgroups | undefined): Promise<AgentProcess> {
  const name = 'nmi';
  const pod = { namespace: agentAccount.namespace, name, node, ip: nodeIp };
  const path = `/api/v1/namespaces/${pod.namespace}/pods/${name}?gracePeriodSeconds=0`;
  await cluster.admin.request('DELETE', path);
  const { metadata } = await runPod(cluster.admin, {
    ...pod,
    serviceAccountName: agentAccount.name,
  });
  const boundTo = { kind: 'Pod', name, uid: metadata.uid } as const;
  await using actor = await cluster.createServiceAccountClient({ ...agentAccount, boundTo });
  const { host, hostname } = new URL(cluster.url);
  const url = `https://${host.replace(hostname, azureIp)}`;
  const text = renderKubeconfig({ url, caPem: cluster.caPem, token: actor.token });
  const kubeconfig = JSON.parse(text) as { clusters: { cluster: Record<string, string> }[] };
  const [entry] = kubeconfig.clusters;
  assert.ok(entry !== undefined);
  entry.cluster['tls-server-name'] = 'localhost';
  const kubeconfigPath = join(cluster.folder, `kubeconfig-${name}`);
  await writeFile(kubeconfigPath, JSON.stringify(kubeconfig), { mode: 0o600 });
  const [program, ...leading] = agentCommand;
  const env = {
    ...process.env,
    KUBECONFIG: kubeconfigPath,
    NMI_EXPLAIN_SOCKET: join(cluster.folder, 'explain.sock'),
    ...(cgroups && { NMI_CGROUP_ROOT: cgroups.root, NMI_BPF_PIN_FOLDER: cgroups.pinFolder }),
  };
  return new AgentProcess({
    adminUrl: `http://${nodeIp}:${probePort}`,
    spawn: (flags) => fabric.exec('node', program, [...leading, ...flags], { env }),
  });
}

async function agentArguments(): Promise<readonly string[]> {
  const path = '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi';
  const daemonSet = (await cluster.admin.expect('GET', path)) as unknown as KubeObject;
  const { containers } = daemonSetOf([{ ...daemonSet, kind: 'DaemonSet' }]).template.spec;
  const args = containers[0]?.args ?? [];
  assert.ok(args.includes(`--http-probe-port=${probePort}`));
  return args.map((arg) => arg.replace('$(NODE_NAME)', node));
}

interface Pods extends AsyncDisposable {
  /** Written with kubectl; the test sets node and address, like scheduler and kubelet. */
  open(namespace: string, name: string, labels: Readonly<Record<string, string>>): Promise<LabPod>;
}

/** Pods of the API server that get a network, and a cgroup if the redirect needs one. */
function createPods(cgroups: LabCgroups | undefined): Pods {
  const opened: LabPod[] = [];
  return {
    async open(namespace, name, labels) {
      await cluster.createNamespace(namespace);
      const manifest = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { namespace, name, labels },
        spec: { nodeName: node, containers: [{ name: 'app', image: 'app' }] },
      };
      await cluster.apply(JSON.stringify(manifest));
      const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
      const { uid } = (await cluster.admin.expect('GET', path)).metadata;
      const { ip, ips } = await fabric.addPod(name);
      const cgroup = cgroups?.addPod(uid);
      const client = await openFabricPod({
        fabric,
        space: name,
        ...(cgroup === undefined ? {} : { cgroup }),
      });
      const podIPs = ips.map((each) => ({ ip: each }));
      const status = { phase: 'Running', podIP: ip, podIPs };
      await setPodStatus(cluster.admin, { namespace, name }, status);
      const pod = new LabPod({
        namespace,
        name,
        ip,
        uid,
        client,
        onIdentity: () => undefined,
        log,
      });
      opened.push(pod);
      return pod;
    },
    async [Symbol.asyncDispose]() {
      for (const pod of opened) {
        await pod[Symbol.asyncDispose]();
        await fabric.removePod(pod.name);
        await deletePod(cluster.admin, pod);
      }
    },
  };
}

/** Runs once, however often it is called. */
function log(line: string): void {
  if (line !== lastLine) process.stdout.write(`${line}\n`);
  lastLine = line;
}

function runShell(script: string): void {
  const { status, stderr } = spawnSync('sh', ['-euc', script], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
    env: {
      HOME: cluster.folder,
      KUBECONFIG: cluster.adminKubeconfig,
      PATH: `${dirname(binaries?.kubectl ?? '')}:${process.env['PATH'] ?? ''}`,
    },
  });
  assert.equal(status, 0, `${script}\n${stderr}`);
}

function firstMatch(text: string, pattern: RegExp): string {
  const found = pattern.exec(text)?.[1];
  assert.ok(found !== undefined, `there is no ${String(pattern)}`);
  return found;
}
