/**
 * Sandboxed pods on a real node: gVisor as a RuntimeClass of containerd, each pod with a link of its own, in both
 * modes; and hundreds at once, each with an agent identity of its own, as sandboxes of AI agents have.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { createEntraApplication } from '../../../lab/fakes/entra/applications.ts';
import { exchangeAudience, exchangeIssuer } from '../../../lab/fakes/exchange-tokens.ts';
import { createLabIdentity, labTenantId } from '../../../lab/fakes/identity.ts';
import { findTokenIdentity } from '../../../lab/fakes/token.ts';
import type { Outcome, Step } from '../../clients/programs/job.ts';
import { installKit } from '../../clients/support/install.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { clientPod, untilPodsReady } from '../support/client-pods.ts';
import { eventuallyByProcess } from '../support/eventually-by-process.ts';
import { provideGvisor } from '../support/gvisor.ts';
import { askImage } from '../support/images.ts';
import { agentPid, installChart } from '../support/install.ts';
import { provideNodeSystem } from '../support/node-system.ts';
import { boundIdentity, openNode, type TestNode } from '../support/node.ts';
import { assertGets, type Mode } from '../support/pod-kinds.ts';

const nodeSystem = provideNodeSystem();
const gvisor = provideGvisor();
const kit = installKit('npm');
const count = 200;
const managed = createLabIdentity('app');
/** It trusts the managed identity, and each agent identity is of it. */
const blueprint = createEntraApplication('blueprint', {
  federatedCredentials: [
    {
      issuer: exchangeIssuer(labTenantId),
      subject: managed.objectId,
      audience: exchangeAudience,
    },
  ],
});
const agentIdentities = Array.from({ length: count }, (_, at) =>
  createEntraApplication(`agent-${at + 1}`, { blueprint: blueprint.clientId }),
);
const agents = agentIdentities.map(({ name }) => name);
const sandboxed = { runtimeClassName: 'gvisor' };

/** What `ask.c` printed. */
interface FirstToken {
  readonly tookMs: number;
  readonly asked: number;
  /** The token's identity, or the answer. */
  readonly got: string;
}

describe(
  'sandboxes on a real node',
  { skip: nodeSystem.missing ?? gvisor.missing ?? kit.missing ?? false },
  () => {
    let node: TestNode;

    before(async () => {
      assert.ok(nodeSystem.programs !== undefined && gvisor.programs !== undefined);
      node = await openNode(nodeSystem.programs, {
        cgroupDriver: 'systemd',
        maxPods: count + 20,
        applications: [blueprint, ...agentIdentities],
        binds: {
          '/opt/gvisor': gvisor.programs,
          '/opt/kit': kit.missing === undefined ? kit.folder : '',
          '/opt/programs': join(repositoryRoot, 'test/clients/programs'),
        },
        ownLinks: true,
      });
      await node.apply({
        apiVersion: 'node.k8s.io/v1',
        kind: 'RuntimeClass',
        metadata: { name: 'gvisor' },
        handler: 'gvisor',
      });
    });
    after(() => node?.[Symbol.asyncDispose]());

    for (const mode of ['ebpf', 'iptables'] as const) {
      it(`get the token of their own identity, ${mode}`, async () => {
        await installChart(node, { redirect: mode });
        await assertOwnTokens(node, mode);
      });
    }

    it('serve an unmodified SDK', () => assertSdk(node));

    it(`start and end ${count} at once, each with a token of its own agent identity`, async (t) => {
      await installChart(node, { redirect: 'ebpf' });
      await assertManyAtOnce(node, t);
    });
  },
);

async function assertOwnTokens(node: TestNode, mode: Mode): Promise<void> {
  const pods = { bound: 'app', other: 'two', unbound: undefined } as const;
  for (const [name, identity] of Object.entries(pods)) {
    const labels = identity === undefined ? {} : { aadpodidbinding: identity };
    await node.apply(clientPod({ name: `${name}-${mode}`, labels, spec: sandboxed }));
  }
  const names = Object.keys(pods).map((name) => `${name}-${mode}`);
  await untilPodsReady(node, ...names);
  const kernel = await node.kubectl(['exec', `bound-${mode}`, '--', 'node', '-p', 'os.release()']);
  assert.match(kernel, /gvisor/);
  await assertGets(node, `bound-${mode}`, 'app');
  await assertGets(node, `other-${mode}`, 'two');
  await assertGets(node, `unbound-${mode}`, '400');
  // Before the agent's next one is ready, nobody gets another's.
  await node.machine.run(['kill', '-KILL', String(await agentPid(node))]);
  await eventuallyByProcess(() => assertGets(node, `bound-${mode}`, 'app'), 40_000);
  await node.kubectl(['delete', 'pod', ...names, '--wait=true'], { timeoutMs: 120_000 });
}

/** @azure/identity in a sandbox, by the identity's client id. */
async function assertSdk(node: TestNode): Promise<void> {
  const id = { kind: 'client', value: managed.clientId } as const;
  const step: Step = { credential: 'managed', id, resource: 'https://vault.azure.net', calls: 2 };
  const folders = ['kit', 'programs'];
  const container = {
    command: ['node', '/opt/programs/azure-identity.ts', '/opt/kit', '@azure/identity'],
    args: [JSON.stringify([step])],
    volumeMounts: folders.map((name) => ({ name, mountPath: `/opt/${name}`, readOnly: true })),
  };
  const volumes = folders.map((name) => ({ name, hostPath: { path: `/opt/${name}` } }));
  const spec = { ...sandboxed, restartPolicy: 'Never', volumes };
  await node.apply(clientPod({ name: 'sdk', labels: { aadpodidbinding: 'app' }, spec, container }));
  const ended = ['wait', '--for=jsonpath={.status.phase}=Succeeded', 'pod/sdk', '--timeout=90s'];
  await node.kubectl(ended, { timeoutMs: 100_000 });
  const { outcomes } = JSON.parse(await node.kubectl(['logs', 'sdk'])) as {
    readonly outcomes: readonly Outcome[];
  };
  assert.deepEqual(outcomes, [{ identity: 'app' }, { identity: 'app' }]);
}

async function assertManyAtOnce(node: TestNode, t: TestContext): Promise<void> {
  const { tenantId: tenantID, clientId: clientID } = blueprint;
  const chain = { type: 4, clientID: managed.clientId, application: { tenantID, clientID } };
  await node.apply(
    ...agentIdentities.flatMap(({ name, clientId }) =>
      boundIdentity(name, { ...chain, agentIdentity: clientId }),
    ),
  );
  const agentAt = await agentSeconds(node);
  const machineAt = machineSeconds();
  const startMs = Date.now();
  await node.apply(...agents.map(agentPod));
  const seen = await eventuallyByProcess(() => {
    const found = firstTokens(node);
    assert.equal(found.size, count);
    return Promise.resolve(found);
  }, 600_000);
  const startedMs = Date.now() - startMs;
  const agentShare =
    `${((await agentSeconds(node)) - agentAt).toFixed(1)} of ` +
    `${(machineSeconds() - machineAt).toFixed(0)} processor seconds were the agent's`;
  for (const [name, { got }] of seen) assert.equal(got, name);
  const maps = await node.machine.run(['cat', `/proc/${await agentPid(node)}/smaps_rollup`]);
  const memory = Number(/^Pss:\s+(\d+)/m.exec(maps)?.[1]);
  assert.ok(memory / 1024 < 105, `the agent uses ${memory} kB`);
  const took = [...seen.values()].map(({ tookMs }) => tookMs).sort((a, b) => a - b);
  const [median = 0, late = 0] = [0.5, 0.99].map((share) => took[Math.floor(share * took.length)]);
  const again = [...seen.values()].filter(({ asked }) => asked > 1).length;
  const deletedMs = Date.now();
  await node.kubectl(['delete', 'pods', '--selector=kind=sandbox', '--wait=true'], {
    timeoutMs: 600_000,
  });
  t.diagnostic(
    `${count} sandboxes had their tokens after ${(startedMs / 1000).toFixed(0)} s (${agentShare}) and ended in ` +
      `${((Date.now() - deletedMs) / 1000).toFixed(0)} s; from a program's start to its token: p50 ${median} ms, ` +
      `p99 ${late} ms; ${again} asked more than once; agent's PSS ${(memory / 1024).toFixed(1)} MB`,
  );
}

function agentPod(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { aadpodidbinding: name, kind: 'sandbox' } },
    spec: {
      ...sandboxed,
      terminationGracePeriodSeconds: 1,
      automountServiceAccountToken: false,
      containers: [{ name: 'ask', image: askImage, imagePullPolicy: 'Never' }],
    },
  };
}

/** Of the pods that have one, by their names. */
function firstTokens(node: TestNode): ReadonlyMap<string, FirstToken> {
  const logs = node.machine.path('/var/log/pods');
  const found = new Map<string, FirstToken>();
  for (const folder of readdirSync(logs)) {
    const [, name = ''] = folder.split('_');
    if (!agents.includes(name)) continue;
    const line = readLog(join(logs, folder, 'ask/0.log'));
    const [, tookMs, asked, status = '', body = ''] =
      / stdout F (\d+) (\d+) (HTTP\S+ \d+|\S*) (.*)$/m.exec(line) ?? [];
    if (tookMs === undefined) continue;
    const got = findTokenIdentity(body) ?? `${status} ${body}`;
    found.set(name, { tookMs: Number(tookMs), asked: Number(asked), got });
  }
  return found;
}

const ticksPerSecond = 100;

async function agentSeconds(node: TestNode): Promise<number> {
  const stat = await node.machine.run(['cat', `/proc/${await agentPid(node)}/stat`]);
  const [, , , , , , , , , , , user, system] = stat.split(') ')[1]?.split(' ') ?? [];
  return (Number(user) + Number(system)) / ticksPerSecond;
}

/** Of all processes. */
function machineSeconds(): number {
  const [line = ''] = readFileSync('/proc/stat', 'latin1').split('\n');
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / ticksPerSecond;
}

function readLog(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
