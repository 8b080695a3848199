import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
} from '../../../../lab/fakes/kube/manifests.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { openConditions } from '../../../../src/nmi/conditions/conditions.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { readyIn } from '../../../support/ready-condition.ts';
import { clientOf } from '../kube/kube-test-bed.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

async function open(kube: FakeKube, flags: Readonly<Record<string, string>> = {}) {
  await using opening = new AsyncDisposableStack();
  const client = opening.use(await clientOf(kube));
  const parsed = parseConfig({ node: 'unnamed', 'agent-namespace': 'kube-system', ...flags }, {});
  assert.ok(parsed.ok);
  const log = createLogger({ format: 'json', level: 'info', write: () => undefined });
  const conditions = opening.use(
    openConditions({
      client,
      config: parsed.config,
      clock: systemClock,
      random: Math.random,
      log,
    }),
  );
  const opened = opening.move();
  return {
    conditions,
    written: () =>
      conditions.samples().find(({ labels }) => labels?.['outcome'] === 'written')?.value,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function readyOf(kube: FakeKube, kind: string, name: string): string {
  return readyIn(kube.get({ kind, name })?.['status']);
}

function populate(kube: FakeKube): void {
  const metadata = { name: 'nmi', namespace: 'kube-system' };
  const status = { desiredNumberScheduled: 3 };
  kube.apply({ apiVersion: 'apps/v1', kind: 'DaemonSet', metadata, status });
  kube.apply(createAzureIdentity({ name: 'cart', clientId }));
  kube.apply(createAzureIdentityBinding({ name: 'cart', azureIdentity: 'cart', selector: 'cart' }));
}

describe('status conditions', () => {
  it('are written by a process that watches the two kinds once, and no pods', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    await using process = await open(kube);
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentity', 'cart'), 'True ok');
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'True ok');
    });
    await eventually(() => assert.equal(process.written(), 2));
    assert.equal(kube.watches(), 2);
    assert.equal(kube.watches('pods'), 0);
    const { conditions } = process;
    assert.deepEqual(
      conditions.conditions.map(({ name, problem }) => [name, problem()]),
      [
        ['watches', undefined],
        ['watches_current', undefined],
      ],
    );
  });

  it('follow the grants when owners are enforced', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    await using _ = await open(kube, { 'identity-owners': 'enforce' });
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'False identity_not_owned');
    });
    assert.equal(kube.watches(), 3);
    kube.apply(createAzureIdentityGrant('all', { namespaces: ['*'], clientIDs: [clientId] }));
    // Not twice in ten seconds.
    await eventually(() => {
      assert.equal(readyOf(kube, 'AzureIdentity', 'cart'), 'True ok');
      assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'True ok');
    }, 30_000);
  });

  it('are not written without the right to list grants when owners are enforced', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    kube.faults.failNext(1_000, 403, { containing: 'azureidentitygrants' });
    kube.apply(createAzureIdentityGrant('all', { namespaces: ['*'], clientIDs: [clientId] }));
    await using process = await open(kube, { 'identity-owners': 'enforce' });
    await eventually(() => {
      const [watches] = process.conditions.conditions;
      assert.match(watches?.problem() ?? '', /^waiting for grants \(FORBIDDEN/);
    });
    assert.equal(process.written(), 0);
    kube.faults.clear();
    await eventually(
      () => assert.equal(readyOf(kube, 'AzureIdentityBinding', 'cart'), 'True ok'),
      30_000,
    );
    assert.equal(process.written(), 2, 'each is written once');
  });

  it('are not written before both kinds are listed, which readiness reports', async () => {
    await using kube = await openFakeKube();
    populate(kube);
    kube.faults.failNext(1_000, 403, { containing: 'azureidentitybindings' });
    await using process = await open(kube);
    await eventually(() => {
      const [watches] = process.conditions.conditions;
      assert.match(watches?.problem() ?? '', /^waiting for bindings \(FORBIDDEN/);
    });
    const outcomes = process.conditions.samples().filter(({ labels }) => labels?.['outcome']);
    assert.equal(outcomes.length, 6);
    assert.ok(outcomes.every(({ value }) => value === 0));
  });
});
