/**
 * Events of the whole agent on a real API server, with the permissions of the manifest, seen by
 * kubectl.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { systemClock } from '../../src/base/time/clock.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { openLoopbackPod } from '../../lab/pods/pod-client.ts';
import { startAgent } from '../../src/nmi/agent.ts';
import { createLogger } from '../../src/base/logger.ts';
import { parseConfig } from '../../src/nmi/config/config.ts';
import { openKubeClient } from '../../src/nmi/kube/api/client.ts';
import { EventWriter } from '../../src/nmi/kube/events/event-writer.ts';
import { keptLog } from '../unit/nmi/kube/kube-test-bed.ts';
import { freePort } from '../../lab/fabric/free-ports.ts';
import { HandClock } from '../support/hand-clock.ts';
import type { Cluster } from './support/cluster.ts';
import { describeOnNewestVersion } from './support/on-clusters.ts';
import { runPod } from './support/pods.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const agentAccount = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };
const token =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net';

const objects = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: { name: reports, namespace: shop }
spec:
  type: 1
  tenantID: 11111111-2222-3333-4444-555555555555
  clientID: 11111111-2222-3333-4444-555555555556
  clientPassword: { name: reports, namespace: shop }
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: { name: reports, namespace: shop }
spec: { azureIdentity: reports, selector: reports }
`;

interface EventView {
  readonly regarding: { readonly name: string };
  readonly reason: string;
  readonly note: string;
}

async function eventsIn(cluster: Cluster, namespace: string): Promise<readonly EventView[]> {
  const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
  const { items } = await cluster.admin.expect('GET', path);
  return (items ?? []) as unknown as readonly EventView[];
}

/** On loopback, without a redirect; it does not wait for late objects. */
async function openAgent(kubeconfig: string) {
  const port = await freePort();
  const parsed = parseConfig(
    {
      node: 'node-a',
      kubeconfig,
      redirect: 'none',
      'nmi-listen-address': '127.0.0.1',
      'nmi-port': String(port),
      'http-probe-port': '0',
      'prometheus-port': '0',
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
      lateObjectWaitMs: 300,
      drainTimeoutMs: 1_000,
      identityEventJitterMs: 0,
    },
  });
  const ask = async (sourceIp: string, times: number): Promise<string> => {
    await using pod = openLoopbackPod({ name: sourceIp, sourceIp, host: '127.0.0.1', port });
    let body = '';
    for (let time = 0; time < times; time++) {
      const answer = await pod.request({
        method: 'GET',
        target: token,
        headers: ['Metadata', 'true'],
        connection: 'kept',
        timeoutMs: 10_000,
      });
      assert.ok(answer.outcome === 'answered');
      body = answer.body;
    }
    return body;
  };
  return { agent, lines, ask, [Symbol.asyncDispose]: () => agent.stop() };
}

describeOnNewestVersion('Events', (cluster) => {
  before(async () => {
    const { admin } = cluster();
    await cluster().createNamespace('shop');
    await cluster().kubectl(['apply', '-f', join(deploy, 'crds.yaml')]);
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
    await cluster().kubectl(['apply', '-f', join(deploy, 'nmi.yaml')]);
    await cluster().apply(objects);
    for (const [name, ip, binding] of [
      ['unbound', '127.0.0.11', 'nothing'],
      ['reports', '127.0.0.12', 'reports'],
    ] as const) {
      const labels = { aadpodidbinding: binding };
      await runPod(admin, { namespace: 'shop', name, node: 'node-a', ip, labels });
    }
  });

  /** A token of the agent on node-a: others write no Events in its name. */
  async function openAgentPod(name: string, ip: string): Promise<string> {
    const { namespace, name: serviceAccountName } = agentAccount;
    const pod = { namespace, name, node: 'node-a', ip, serviceAccountName };
    const { metadata } = await runPod(cluster().admin, pod);
    const boundTo = { kind: 'Pod', name, uid: metadata.uid } as const;
    const actor = await cluster().createServiceAccountClient({ ...agentAccount, boundTo });
    return actor.kubeconfigPath;
  }

  it('show a namespace’s user reason and fix of a refusal, once, on pod and identity', async () => {
    const kubeconfigPath = await openAgentPod('nmi-x', '10.0.0.9');
    await using fixture = await openAgent(kubeconfigPath);
    await eventually(async () => {
      assert.match(await fixture.ask('127.0.0.11', 50), /\(binding_missing\)/);
    });
    assert.match(await fixture.ask('127.0.0.12', 50), /\(credential_invalid\)/);
    const describe = (kind: string, namespace: string, name: string): Promise<string> =>
      cluster().kubectl(['-n', namespace, 'describe', kind, name]);
    await eventually(async () => {
      const unbound = await describe('pod', 'shop', 'unbound');
      assert.match(
        unbound,
        /Warning +BindingMissing +\S+ +entra-pod-identity\/nmi.*no AzureIdentityBinding in namespace shop has that selector.* Fix: /,
      );
      for (const [kind, name] of [
        ['pod', 'reports'],
        ['azureidentity', 'reports'],
      ] as const) {
        assert.match(
          await describe(kind, 'shop', name),
          /Warning +CredentialInvalid +.* Fix: Correct the Secret/,
        );
      }
    });
    const reasons = (await eventsIn(cluster(), 'shop')).map(({ reason }) => reason);
    assert.deepEqual(reasons.toSorted(), [
      'BindingMissing',
      'CredentialInvalid',
      'CredentialInvalid',
    ]);
    await eventually(async () => {
      const agentPod = await describe('pod', 'kube-system', 'nmi-x');
      // In this test, without a redirect, readiness needs only the watches, which have synced.
      assert.match(agentPod, /Normal +Ready +.*The agent is ready/);
    });
    assert.ok(!fixture.lines.some((line) => line.includes('failed to write an Event')));
  });

  it('about an identity are one, whichever agent comes first', async () => {
    await cluster().createNamespace('shared');
    const kubeconfigPath = await openAgentPod('nmi-z', '10.0.0.11');
    await using client = await openKubeClient({ kubeconfigPath, userAgent: 'test' });
    for (const _agent of [1, 2, 3]) {
      const clock = new HandClock(Date.UTC(2026, 11, 2));
      const log = keptLog();
      using writer = new EventWriter({ client, clock, instance: 'node-a', random: () => 0, log });
      const apiVersion = 'aadpodidentity.k8s.io/v1';
      const identity = { apiVersion, kind: 'AzureIdentity', namespace: 'shared' };
      writer.record({ ...identity, name: 'reports', uid: 'uid-1' }, 'credential_refused', () => ({
        related: undefined,
        type: 'Warning',
        reason: 'CredentialRefused',
        action: 'GetToken',
        note: 'AADSTS7000222',
        sharedForMs: 600_000,
      }));
      await eventually(() => assert.equal(writer.samples()[0]?.value, 1));
    }
    const events = await eventsIn(cluster(), 'shared');
    assert.deepEqual(
      events.map(({ regarding, reason }) => [regarding.name, reason]),
      [['reports', 'CredentialRefused']],
    );
  });
});
