import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import type { OwnersMode } from '../../../src/nmi/grants/identity-owners.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { openOwnerReport } from '../../../src/nmi/state/owner-report.ts';
import {
  createBinding,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createOwners } from '../../support/owners.ts';
import { keptLog } from '../kube/kube-test-bed.ts';

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

function open(mode: OwnersMode = 'warn') {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  const { index, owners } = createOwners(mode);
  const state = { isSynced: true };
  const log = keptLog();
  const report = openOwnerReport({
    clusterState: {
      pods,
      grants,
      owners,
      workloadIdentities: undefined,
      upstreams: new UpstreamResolver(() => ({ ok: false, problem: 'nobody asks' })),
      isSynced: () => state.isSynced,
    },
    clock,
    log,
  });
  pods.upsert(createPod({ labels: { aadpodidbinding: 'label' } }));
  const add = (name: string, id = clientId): void => {
    grants.identities.upsert(createIdentity({ name, clientId: id }));
    grants.bindings.upsert(createBinding({ name, identityName: name }));
  };
  const messages = () => log.lines.splice(0).map(({ message }) => message);
  return { clock, grants, index, state, log, report, add, messages };
}

const served = 'identity without an AzureIdentityGrant is served';

describe('the report of identities without a grant', () => {
  it('logs each once, without its full id, until it changes', () => {
    const { clock, log, report, add, messages } = open();
    add('mine');
    clock.advance(5_000);
    assert.deepEqual(log.lines[0]?.fields, {
      object: 'AzureIdentity default/mine',
      pod: 'default/pod',
      lacks: 'spec.clientIDs',
      id: '2272##### REDACTED #####3301',
    });
    assert.deepEqual([messages(), report.unowned], [[served], 1]);
    add('other');
    clock.advance(5_000);
    assert.deepEqual([messages(), report.unowned], [[served], 2]);
    add('mine', clientId.replace('3301', '3302'));
    clock.advance(5_000);
    assert.deepEqual([messages(), report.unowned], [[served], 2]);
  });

  it('follows the grants, and reports what enforce does', () => {
    const { clock, index, report, add, messages } = open('enforce');
    add('mine');
    clock.advance(5_000);
    assert.deepEqual(messages(), ['identity without an AzureIdentityGrant is refused']);
    index.grants.upsert(createIdentityGrant({ namespaces: ['*'], clientIds: [clientId] }));
    clock.advance(5_000);
    assert.deepEqual([messages(), report.unowned], [[], 0]);
    index.grants.replace([]);
    clock.advance(5_000);
    assert.deepEqual([messages().length, report.unowned], [1, 1]);
  });

  it('is logged once in five seconds with at most ten lines, whatever changes', () => {
    const { clock, add, messages } = open();
    for (let number = 0; number < 40; number++) {
      add(`i${number}`, `${clientId.slice(0, -2)}${10 + number}`);
      clock.advance(100);
    }
    assert.deepEqual(messages(), []);
    clock.advance(1_000);
    assert.deepEqual(messages(), [
      ...Array.from({ length: 10 }, () => served),
      'more identities without an AzureIdentityGrant',
    ]);
  });

  it('waits for the first lists, because the grants may arrive last', () => {
    const { clock, index, state, add, messages } = open();
    state.isSynced = false;
    add('mine');
    clock.advance(60_000);
    assert.deepEqual(messages(), []);
    index.grants.upsert(createIdentityGrant({ namespaces: ['*'], clientIds: [clientId] }));
    state.isSynced = true;
    clock.advance(5_000);
    assert.deepEqual(messages(), []);
  });

  it('ends with its disposal', () => {
    const { clock, report, add, messages } = open();
    add('mine');
    report[Symbol.dispose]();
    add('other');
    assert.deepEqual(clock.armed, []);
    clock.advance(60_000);
    assert.deepEqual(messages(), []);
  });
});
