import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createServiceAccounts } from '../../../src/nmi/kube/accounts/service-accounts.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { WorkloadIdentities } from '../../../src/nmi/grants/workload-identities.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

const clientId = 'AAAAAAAA-1111-4111-8111-111111111111';
const labels = { 'azure.workload.identity/use': 'true' };
const pod = createPod({ labels, serviceAccount: 'robot' });

function open(annotations: Record<string, string> | KubeError) {
  const clock = new HandClock();
  const answer = { annotations };
  const paths: string[] = [];
  const unreadable: string[] = [];
  const accounts = createServiceAccounts({
    clock,
    staleLimitMs: 300_000,
    onUnreadable: ({ namespace, name }, { kind }) => {
      unreadable.push(`${namespace}/${name} ${kind}`);
    },
    client: {
      getJson: (path) => {
        paths.push(path);
        const { annotations: given } = answer;
        if (given instanceof KubeError) return Promise.reject(given);
        return Promise.resolve({ metadata: { annotations: given } });
      },
    },
  });
  const identities = new WorkloadIdentities(accounts, 'tenant.example');
  return { clock, answer, paths, unreadable, identities };
}

async function untilKnown({ identities }: ReturnType<typeof open>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const off = identities.onChange(resolve);
  assert.equal(identities.of(pod).kind, 'unknown');
  await promise;
  off();
}

describe('a pod with Workload Identity', () => {
  it('is recognized by its label, and no other pod causes a request', () => {
    const fixture = open({});
    assert.equal(fixture.identities.of(createPod({ serviceAccount: 'robot' })).kind, 'none');
    const off = createPod({ labels: { 'azure.workload.identity/use': 'false' } });
    assert.equal(fixture.identities.of(off).kind, 'none');
    assert.deepEqual(fixture.paths, []);
  });

  it('has the application of its service account, in the tenant named there or by default', async () => {
    const fixture = open({
      'azure.workload.identity/client-id': clientId,
      'azure.workload.identity/tenant-id': 'other.example',
    });
    const before = fixture.identities.generation;
    await untilKnown(fixture);
    assert.notEqual(fixture.identities.generation, before);
    assert.deepEqual(fixture.identities.of(pod), {
      kind: 'application',
      clientId: clientId.toLowerCase(),
      tenantId: 'other.example',
    });
    assert.deepEqual(fixture.paths, ['/api/v1/namespaces/default/serviceaccounts/robot']);

    const plain = open({ 'azure.workload.identity/client-id': clientId });
    await untilKnown(plain);
    const choice = plain.identities.of(pod);
    assert.ok(choice.kind === 'application' && choice.tenantId === 'tenant.example');
  });

  it('has none while its service account names none', async () => {
    const fixture = open({});
    await untilKnown(fixture);
    const account = { namespace: 'default', name: 'robot' };
    assert.deepEqual(fixture.identities.of(pod), { kind: 'unannotated', account });
  });

  it('is not served from an old read, nor for long while the API server is down', async () => {
    const fixture = open({ 'azure.workload.identity/client-id': clientId });
    await untilKnown(fixture);
    await pass(fixture.clock, 6 * 3_600_000);
    fixture.answer.annotations = {};
    const { promise, resolve } = Promise.withResolvers<void>();
    fixture.identities.onChange(resolve);
    assert.equal(fixture.identities.lastOf(pod).kind, 'application');
    assert.equal(fixture.identities.of(pod).kind, 'unknown');
    await promise;
    assert.equal(fixture.identities.of(pod).kind, 'unannotated');

    const away = open({ 'azure.workload.identity/client-id': clientId });
    await untilKnown(away);
    await pass(away.clock, 290_000);
    away.answer.annotations = new KubeError('NETWORK', 'gone');
    assert.equal(away.identities.of(pod).kind, 'unknown', 'it is tried first');
    await new Promise(setImmediate);
    assert.equal(away.identities.of(pod).kind, 'application');
    away.clock.advance(10_001);
    assert.equal(away.identities.of(pod).kind, 'unknown', 'it is tried again');
    await new Promise(setImmediate);
    const account = { namespace: 'default', name: 'robot' };
    assert.deepEqual(away.identities.of(pod), { kind: 'unavailable', account });
    assert.equal(away.identities.lastOf(pod).kind, 'application', 'its tokens are kept');
  });

  it('gets a message when the account may not be read, after one request', async () => {
    const fixture = open(new KubeError('FORBIDDEN', 'no right'));
    assert.equal(fixture.identities.of(pod).kind, 'unknown');
    await new Promise(setImmediate);
    assert.equal(fixture.identities.of(pod).kind, 'unreadable');
    await new Promise(setImmediate);
    assert.deepEqual(fixture.unreadable, ['default/robot forbidden']);
    assert.equal(fixture.paths.length, 1, 'not repeated at once');
  });
});
