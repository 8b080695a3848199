import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../../src/cache/clock.ts';
import { openFakeKube, type FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
} from '../../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { asRecord, stringAt } from '../../../src/nmi/base/json-value.ts';
import { createLogger } from '../../../src/nmi/base/logger.ts';
import {
  Conditions,
  leaseName,
  type ConditionsOptions,
} from '../../../src/nmi/conditions/conditions.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import type { ElectionTiming } from '../../../src/nmi/kube/lease/leader-election.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { createIdentityGrant } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createOwners } from '../../support/owners.ts';
import { readyIn } from '../../support/ready-condition.ts';
import { pass } from '../../support/token-fixture.ts';
import { clientOf } from '../kube/kube-test-bed.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';
const timing: ElectionTiming = {
  durationMs: 900,
  deadlineMs: 600,
  renewMs: 150,
  pollMs: 300,
  firstMs: 10,
};
const serviceAccount = {
  username: 'system:serviceaccount:kube-system:nmi',
  groups: ['system:serviceaccounts'],
};

async function openAgent(
  kube: FakeKube,
  node: string,
  mode: OwnersMode = 'warn',
  over: Partial<ConditionsOptions> = {},
) {
  await using opening = new AsyncDisposableStack();
  const client = opening.use(await clientOf(kube));
  const { owners, index } = createOwners(mode);
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const upstreams = new UpstreamResolver(() => ({ ok: false, problem: 'nobody asks' }));
  const conditions = opening.use(
    new Conditions({
      client,
      node,
      clock: systemClock,
      random: Math.random,
      log,
      timing,
      clusterState: { upstreams, owners, isSynced: () => true },
      ...over,
    }),
  );
  const opened = opening.move();
  const sample = (name: string, outcome?: string) =>
    conditions
      .samples()
      .find(({ metric, labels }) => metric === name && labels?.['outcome'] === outcome)?.value;
  return {
    conditions,
    index,
    lines,
    isLeader: () => sample('nmi_conditions_leader') === 1,
    written: () => sample('nmi_conditions_writes_total', 'written') ?? 0,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function readyOf(kube: FakeKube, kind: string, name: string): string {
  return readyIn(kube.get({ kind, name })?.['status']);
}

function populate(kube: FakeKube): void {
  kube.user = serviceAccount;
  kube.apply(createAzureIdentity({ name: 'cart', clientId }));
  kube.apply(createAzureIdentityBinding({ name: 'cart', azureIdentity: 'cart', selector: 'cart' }));
}

describe('status conditions', () => {
  it('are written by one of two agents, and by the other when that one has stopped', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    await using one = await openAgent(kube, 'node-1');
    await using two = await openAgent(kube, 'node-2');
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentity', 'cart'), 'True ok');
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'True ok');
    });
    const [leader, other] = one.isLeader() ? [one, two] : [two, one];
    await eventually(() => assert.equal(leader.written(), 2));
    const counts = leader.conditions.samples().filter(({ value }) => value !== 0);
    assert.deepEqual(
      counts.map(({ metric, labels }) => [metric, labels?.['outcome']]),
      [
        ['nmi_conditions_leader', undefined],
        ['nmi_conditions_writes_total', 'written'],
      ],
    );
    assert.deepEqual([other.isLeader(), other.written()], [false, 0]);
    assert.equal(kube.watches(), 2, 'the leader’s own');
    await leader.conditions[Symbol.asyncDispose]();
    kube.apply(createAzureIdentityBinding({ name: 'till', azureIdentity: 'x', selector: 'till' }));
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'till'), 'False identity_missing');
    });
    await eventually(() => assert.equal(other.written(), 1));
    assert.ok(other.isLeader());
    assert.equal(kube.watches(), 2);
    const lease = kube.get({ kind: 'Lease', namespace: 'kube-system', name: leaseName });
    assert.match(stringAt(asRecord(lease?.['spec']), 'holderIdentity'), /^node-[12]_/);
  });

  it('follow the grants when owners are enforced', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    await using agent = await openAgent(kube, 'node-1', 'enforce');
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'False identity_not_owned');
    });
    agent.index.grants.upsert(createIdentityGrant({ namespaces: ['*'], clientIds: [clientId] }));
    // Not twice in ten seconds.
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentity', 'cart'), 'True ok');
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'True ok');
    }, 30_000);
  });

  it('begin once the agent knows its account, which it requests less and less often', async () => {
    await using kube = await openFakeKube();
    kube.user = serviceAccount;
    const clock = new HandClock();
    await using client = await clientOf(kube);
    let requests = 0;
    const postJson = (): Promise<never> => {
      requests += 1;
      return Promise.reject(new KubeError('NETWORK', 'away'));
    };
    const over = { clock, random: () => 0, client: { ...client, postJson } };
    await using agent = await openAgent(kube, 'node-1', 'warn', over);
    await pass(clock, 10_000);
    assert.equal(requests, 5);
    await pass(clock, 3_600_000);
    assert.ok(requests > 20 && requests < 40, `${requests} requests`);
    assert.deepEqual(agent.conditions.samples(), []);
  });

  it('are off, with a log line, when the agent has no service account', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    kube.user = { username: 'kubernetes-admin', groups: [] };
    await using agent = await openAgent(kube, 'node-1');
    await eventually(() => assert.match(agent.lines.join(''), /status conditions are off/));
    await delay(1_000);
    assert.deepEqual(
      kube.requests.map(({ method }) => method),
      ['POST'],
    );
    assert.equal(agent.isLeader(), false);
  });
});
