/**
 * Sandboxed pods on a real node: gVisor as a RuntimeClass of containerd, each pod with a link of its own, in both
 * modes; and some at once, each with an agent identity of its own, as sandboxes of AI agents have.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createEntraApplication } from '../../../lab/fakes/entra/applications.ts';
import { exchangeAudience, exchangeIssuer } from '../../../lab/fakes/exchange-tokens.ts';
import { createLabIdentity, labTenantId } from '../../../lab/fakes/identity.ts';
import type { Outcome, Step } from '../clients/programs/job.ts';
import { installKit } from '../clients/support/install.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { clientPod, untilPodsReady } from '../support/client-pods.ts';
import { eventuallyByProcess } from '../support/machine.ts';
import { provideGvisor } from '../support/gvisor.ts';
import { agentPid, installChart } from '../support/install.ts';
import { provideNodeSystem } from '../support/node-system.ts';
import { boundIdentity, openNode, type TestNode } from '../support/node.ts';
import { assertGets, type Mode } from '../support/pod-kinds.ts';

const nodeSystem = provideNodeSystem();
const gvisor = provideGvisor();
const kit = installKit('npm');
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
const agentIdentities = Array.from({ length: 5 }, (_, at) =>
  createEntraApplication(`agent-${at + 1}`, { blueprint: blueprint.clientId }),
);
const sandboxed = { runtimeClassName: 'gvisor' };

describe(
  'sandboxes on a real node',
  { skip: nodeSystem.missing ?? gvisor.missing ?? kit.missing ?? false },
  () => {
    let node: TestNode;

    before(async () => {
      assert.ok(nodeSystem.programs !== undefined && gvisor.programs !== undefined);
      node = await openNode(nodeSystem.programs, {
        cgroupDriver: 'systemd',
        applications: [blueprint, ...agentIdentities],
        binds: {
          '/opt/gvisor': gvisor.programs,
          '/opt/kit': kit.missing === undefined ? kit.folder : '',
          '/opt/programs': join(repositoryRoot, 'test/node/clients/programs'),
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

    it('each get a token of their own agent identity', () => assertManyAtOnce(node));
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

async function assertManyAtOnce(node: TestNode): Promise<void> {
  const { tenantId: tenantID, clientId: clientID } = blueprint;
  const chain = { type: 4, clientID: managed.clientId, application: { tenantID, clientID } };
  const names = agentIdentities.map(({ name }) => name);
  await node.apply(
    ...agentIdentities.flatMap(({ name, clientId }) =>
      boundIdentity(name, { ...chain, agentIdentity: clientId }),
    ),
    ...names.map((name) => clientPod({ name, labels: { aadpodidbinding: name }, spec: sandboxed })),
  );
  await untilPodsReady(node, ...names);
  await Promise.all(names.map((name) => assertGets(node, name, name)));
  await node.kubectl(['delete', 'pod', ...names, '--wait=true'], { timeoutMs: 120_000 });
}
