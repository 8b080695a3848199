/**
 * The fast path never returns an answer that `node:http` and the checks behind it would not return.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { CallerConnection } from '../../../../src/nmi/callers/caller.ts';
import { createServiceAccounts } from '../../../../src/nmi/kube/accounts/service-accounts.ts';
import type { Attestation } from '../../../../src/redirect/redirect.ts';
import { createBinding, createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { FastConnection } from '../../../support/fast-connection.ts';
import { world, type WorldGiven } from '../../../world.ts';
import { pass } from '../../../support/token-fixture.ts';

const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net';
const clientId = 'aaaaaaaa-1111-4111-8111-111111111111';

function open(tokens: WorldGiven['tokens'] = {}) {
  const clock = new HandClock();
  const annotations: Record<string, string> = {};
  const accounts = createServiceAccounts({
    clock,
    staleLimitMs: 300_000,
    client: { getJson: () => Promise.resolve({ metadata: { annotations: { ...annotations } } }) },
  });
  const fixture = world({
    clock,
    accounts,
    accountsTenant: 'tenant.example',
    policy: { graceMs: 0 },
    tokens,
  });
  const connect = (attestation: Attestation) => {
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, attestation, () => 'uid-p');
    const connection = new FastConnection(fixture.fastPath, caller);
    return () => connection.ask(target);
  };
  const isServed = connect({ kind: 'by-address' });
  return { ...fixture, clock, annotations, isServed, connect };
}

function serve(fixture: ReturnType<typeof open>): void {
  fixture.pods.upsert(createPod({ ips: ['10.0.0.1'], labels: { aadpodidbinding: 'label' } }));
  fixture.grants.identities.upsert(createIdentity({ clientId }));
  fixture.grants.bindings.upsert(createBinding());
}

describe('the fast path on a kept connection', () => {
  it('answers each request by its own parameters, whatever was requested before', () => {
    const fixture = open();
    serve(fixture);
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    const connection = new FastConnection(fixture.fastPath, caller);
    const other = target.replace('vault', 'storage');
    for (const asked of [target, other, other, target]) {
      assert.ok(connection.ask(asked));
      assert.equal(fixture.hits.at(-1)?.target, asked);
    }
  });

  it('does not answer a request for a new token from the cache', () => {
    const fixture = open();
    serve(fixture);
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    const connection = new FastConnection(fixture.fastPath, caller);
    assert.ok(!connection.ask(`${target}&bypass_cache=true`));
    assert.ok(connection.ask(`${target}&bypass_cache=false`));
  });

  it('hands over a draining connection, because its answer must announce the end', () => {
    const fixture = open();
    serve(fixture);
    const state = { isDraining: false };
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    const connection = new FastConnection(fixture.fastPath, caller, () => state.isDraining);
    assert.ok(connection.ask(target));
    state.isDraining = true;
    assert.ok(!connection.ask(target));
  });

  it('hands over a request whose token is not in memory, as no fault', () => {
    const fixture = open({ peek: () => undefined });
    serve(fixture);
    const caller = new CallerConnection({ remoteIp: '10.0.0.1' }, { kind: 'by-address' });
    const connection = new FastConnection(fixture.fastPath, caller);
    assert.ok(!connection.ask(target));
    assert.deepEqual([fixture.hits, fixture.bugs], [[], []]);
  });

  it('ends with each object that the decision depends on', () => {
    const pod = createPod({ ips: ['10.0.0.1'], labels: { aadpodidbinding: 'label' } });
    const identity = createIdentity({ clientId });
    const binding = createBinding();
    const losses: readonly ((fixture: ReturnType<typeof open>) => void)[] = [
      ({ pods }) => {
        pods.remove(pod);
      },
      ({ pods }) => {
        pods.upsert({ ...pod, labels: {} });
      },
      ({ pods }) => {
        pods.upsert({ ...pod, ips: ['10.0.0.2'] });
      },
      ({ pods }) => {
        pods.upsert({ ...pod, phase: 'Succeeded' });
      },
      ({ grants }) => {
        grants.bindings.remove(binding);
      },
      ({ grants }) => {
        grants.identities.remove(identity);
      },
    ];
    for (const lose of losses) {
      const fixture = open();
      fixture.pods.upsert(pod);
      fixture.grants.identities.upsert(identity);
      fixture.grants.bindings.upsert(binding);
      assert.ok(fixture.isServed());
      assert.ok(fixture.isServed());
      lose(fixture);
      assert.equal(fixture.isServed(), false, lose.toString());
    }
  });

  it('ends within a second when addresses are not trusted any more, for callers without other evidence', () => {
    const { clock, pods, grants, state, isServed, connect } = open();
    pods.upsert(
      createPod({
        uid: 'uid-p',
        cgroupUid: 'uid-p',
        ips: ['10.0.0.1'],
        labels: { aadpodidbinding: 'label' },
      }),
    );
    grants.identities.upsert(createIdentity({ clientId }));
    grants.bindings.upsert(createBinding());
    const isAttestedServed = connect({ kind: 'attested', cgroupId: 7n });
    assert.ok(isServed());
    assert.ok(isAttestedServed());
    state.trusts = false;
    assert.equal(connect({ kind: 'by-address' })(), false, 'a new connection is not served at all');
    clock.advance(1_000);
    assert.equal(isServed(), false);
    assert.ok(isAttestedServed(), 'the kernel reports the pod');
    state.rightsProblem = 'not proven current: pods for 1 d 0 h';
    clock.advance(1_000);
    assert.ok(!isAttestedServed(), 'its rights are too old');
    state.rightsProblem = undefined;
    state.trusts = true;
    assert.ok(isServed());
  });

  it('ends when the service account loses its application, although only this client sends requests', async () => {
    const fixture = open();
    fixture.annotations['azure.workload.identity/client-id'] = clientId;
    const labels = { 'azure.workload.identity/use': 'true' };
    fixture.pods.upsert(createPod({ ips: ['10.0.0.1'], labels, serviceAccount: 'robot' }));
    assert.equal(fixture.isServed(), false, 'it is still being read');
    await nextTurn();
    assert.ok(fixture.isServed());
    delete fixture.annotations['azure.workload.identity/client-id'];
    let servedS = 0;
    while (fixture.isServed()) {
      servedS += 10;
      assert.ok(servedS <= 180, 'served three minutes after the annotation was removed');
      await pass(fixture.clock, 10_000);
      await nextTurn();
    }
  });
});

describe('the files of the fast path', () => {
  it('are imported by only one other file, which connects them to the server', () => {
    const root = join(import.meta.dirname, '../../../../src');
    const importers = readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts') && !path.includes('/fast-path/'))
      .filter((path) => /from '[^']*\/fast-path\//.test(readFileSync(join(root, path), 'utf8')));
    assert.deepEqual(importers, ['nmi/server/server.ts']);
  });
});
