import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import type { GrantedDecision } from '../../../src/nmi/server/decision-cache.ts';
import {
  createBinding,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { FastConnection } from '../../support/fast-connection.ts';
import { world, type WorldGiven } from '../../world.ts';

const nodeIp = '10.224.0.4';
const clientIds = {
  one: '22729e47-74ce-4b43-8eea-aab5f2073301',
  two: '22729e47-74ce-4b43-8eea-aab5f2073302',
};
const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
const vault = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://two.example';

/** Two pods on the host network, which share the node's address, each bound to an identity. */
function openFixture(given: WorldGiven = {}) {
  const clock = new HandClock(1_000_000);
  const {
    pods,
    grants,
    ownerIndex: index,
    fastPath,
    hits,
  } = world({ ...given, clock, policy: { graceMs: 0 }, tokens: {} });
  for (const name of ['one', 'two'] as const) {
    pods.upsert(
      createPod({
        name,
        uid: name,
        cgroupUid: name,
        ips: [nodeIp],
        hostNetwork: true,
        labels: { aadpodidbinding: name },
      }),
    );
    grants.identities.upsert(createIdentity({ name, uid: name, clientId: clientIds[name] }));
    grants.bindings.upsert(createBinding({ name, uid: name, identityName: name, selector: name }));
  }
  /** One request of the process in the pod's cgroup on a new connection. @returns its decision. */
  function ask(pod: string, asked = target): GrantedDecision | undefined {
    const attestation = { kind: 'attested', cgroupId: 1n } as const;
    const caller = new CallerConnection(
      { remoteIp: nodeIp, localIp: nodeIp },
      attestation,
      () => pod,
    );
    hits.length = 0;
    new FastConnection(fastPath, caller).ask(asked);
    return hits[0];
  }
  return { clock, pods, grants, index, ask };
}

describe('a decision that was made for another connection', () => {
  it('is found by connections of the same pod with the same request', () => {
    const { ask } = openFixture();
    const first = ask('one');
    assert.equal(first?.grant.identity?.name, 'one');
    assert.equal(ask('one'), first);
    assert.equal(ask('one', vault)?.query.resource, 'https://two.example');
    assert.equal(ask('one'), first);
  });

  it('is never used for another pod of the same address', () => {
    const { ask } = openFixture();
    for (const pod of ['one', 'two', 'one', 'two']) {
      assert.equal(ask(pod)?.grant.identity?.name, pod);
    }
  });

  it('is kept for each of the many requests that a pod repeats, up to a limit', () => {
    const { ask } = openFixture();
    const nth = (number: number) => `${target}/${number}`;
    const others = ask('two');
    const decisions = Array.from({ length: 500 }, (_, number) => ask('one', nth(number)));
    for (const [number, decision] of decisions.entries())
      assert.equal(ask('one', nth(number)), decision);
    for (let number = 500; number < 2_000; number++) ask('one', nth(number));
    assert.notEqual(ask('one', nth(0)), decisions[0], 'it had 2,000 requests');
    assert.equal(ask('two'), others, 'the other pod lost its decision');
  });

  it('is not kept for a request that is long', () => {
    const { ask } = openFixture();
    const long = `${target}/`.padEnd(512, 'x');
    const first = ask('one', long);
    assert.ok(first !== undefined);
    assert.equal(ask('one', long), first);
    const longer = ask('one', `${long}x`);
    assert.notEqual(ask('one', `${long}x`), longer);
  });

  it('is kept for a limited number of requests of all pods together', () => {
    const { ask, pods } = openFixture();
    const first = ask('one');
    const labels = { aadpodidbinding: 'one' };
    for (let pod = 0; pod < 9; pod++) {
      const name = `pod-${pod}`;
      const own = { name, uid: name, cgroupUid: name, ips: [nodeIp], hostNetwork: true, labels };
      pods.upsert(createPod(own));
    }
    const kept = ask('one');
    assert.notEqual(kept, first, 'pods were added since');
    for (let pod = 0; pod < 7; pod++) {
      for (let number = 0; number < 500; number++) ask(`pod-${pod}`, `${target}/${number}`);
    }
    assert.equal(ask('one'), kept);
    for (let number = 0; number < 500; number++) {
      ask('pod-7', `${target}/${number}`);
      ask('pod-8', `${target}/${number}`);
    }
    assert.notEqual(ask('one'), kept, 'there were more than 4,096');
  });

  it('is not used for a cached token when a client requests a new one', () => {
    const { ask } = openFixture();
    assert.ok(ask('one') !== undefined);
    assert.equal(ask('one', `${target}&bypass_cache=true`), undefined);
    const hash = `token_sha256_to_refresh=${'ab'.repeat(32)}`;
    assert.equal(ask('one', `${target}&${hash}`), undefined);
  });

  it('ends with a change of an object behind it, and after a second', () => {
    const { ask, grants, clock } = openFixture();
    const first = ask('one');
    clock.advance(1_001);
    const second = ask('one');
    assert.notEqual(second, first);
    grants.bindings.remove({ namespace: 'default', name: 'one', uid: 'one' });
    assert.equal(ask('one'), undefined);
  });

  it('ends with the grant of its identity, on the fast path too', () => {
    const owned = { namespaces: ['default'], clientIds: Object.values(clientIds) };
    const { ask, index } = openFixture({ owners: 'enforce', identityGrants: [owned] });
    assert.equal(ask('one')?.grant.identity?.name, 'one');
    assert.equal(ask('two')?.grant.identity?.name, 'two');
    const left = { namespaces: ['default'], clientIds: [clientIds.two] };
    index.grants.replace([createIdentityGrant(left)]);
    assert.equal(ask('one'), undefined);
    assert.equal(ask('two')?.grant.identity?.name, 'two');
  });
});
