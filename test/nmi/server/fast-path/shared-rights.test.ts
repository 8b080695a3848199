import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import { RenderedToken } from '../../../../src/cache/token/token.ts';
import { CallerConnection } from '../../../../src/nmi/grants/caller.ts';
import { HitPath, type StandingRight } from '../../../../src/nmi/server/fast-path/lookup.ts';
import { UpstreamDirectory } from '../../../../src/nmi/grants/resolve-upstream.ts';
import { createBinding, createIdentity, createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const nodeIp = '10.224.0.4';
const clientIds = {
  one: '22729e47-74ce-4b43-8eea-aab5f2073301',
  two: '22729e47-74ce-4b43-8eea-aab5f2073302',
};
const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://one.example';
const vault = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://two.example';

/** Two pods on the host network, which share the node's address, each bound to an identity. */
function openStand() {
  const clock = new HandClock(1_000_000);
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  for (const name of ['one', 'two'] as const) {
    pods.upsert(
      createPod({
        ...{ name, uid: name, cgroupUid: name, ips: [nodeIp], hostNetwork: true },
        labels: { aadpodidbinding: name },
      }),
    );
    grants.identities.upsert(createIdentity({ name, uid: name, clientId: clientIds[name] }));
    grants.bindings.upsert(createBinding({ name, uid: name, identityName: name, selector: name }));
  }
  const token = new RenderedToken({
    ...{ accessToken: 't', clientId: '', resource: '', expiresAtWallS: 5_000 },
    ...{ notBeforeWallS: 0, extExpiresAtWallS: undefined },
  });
  const rights: StandingRight[] = [];
  const hits = new HitPath({
    knowledge: {
      ...{
        pods,
        grants,
        isSynced: () => true,
        trustsAddresses: () => true,
        workloadIdentities: undefined,
      },
      upstreams: new UpstreamDirectory(() => ({ ok: false, problem: 'nobody asks' })),
    },
    broker: { peekKey: () => token },
    policy: { strict: false, graceMs: 60_000, hostNetwork: 'serve' },
    clock,
    onHit: (_exchange, right) => rights.push(right),
  });
  /** A new connection of the process in the pod's cgroup asks once; its right. */
  function ask(pod: string, asked = target): StandingRight | undefined {
    const attestation = { kind: 'attested', cgroupId: 1n } as const;
    const caller = new CallerConnection(
      { remoteAddress: nodeIp, localAddress: nodeIp },
      attestation,
      () => pod,
    );
    rights.length = 0;
    hits.open(caller).find(asked, clock.monotonicMs(), 'id');
    return rights[0];
  }
  return { clock, pods, grants, ask };
}

describe('a right that was worked out for another connection', () => {
  it('is found by those of the same pod that ask the same', () => {
    const { ask } = openStand();
    const first = ask('one');
    assert.equal(first?.authorised.identity?.name, 'one');
    assert.equal(ask('one'), first);
    assert.equal(ask('one', vault)?.resource, 'https://two.example');
    assert.equal(ask('one'), first);
  });

  it('is never given to another pod of the same address', () => {
    const { ask } = openStand();
    for (const pod of ['one', 'two', 'one', 'two']) {
      assert.equal(ask(pod)?.authorised.identity?.name, pod);
    }
  });

  it('is kept for each of the many things that a pod asks for in turn, up to a bound', () => {
    const { ask } = openStand();
    const nth = (number: number) => `${target}/${number}`;
    const others = ask('two');
    const rights = Array.from({ length: 500 }, (_, number) => ask('one', nth(number)));
    for (const [number, right] of rights.entries()) assert.equal(ask('one', nth(number)), right);
    for (let number = 500; number < 2_000; number++) ask('one', nth(number));
    assert.notEqual(ask('one', nth(0)), rights[0], 'it had 2,000');
    assert.equal(ask('two'), others, 'the other pod lost its own');
  });

  it('ends with a change of what it rests on, and with its second', () => {
    const { ask, grants, clock } = openStand();
    const first = ask('one');
    clock.advance(1_001);
    const second = ask('one');
    assert.notEqual(second, first);
    grants.bindings.remove({ namespace: 'default', name: 'one', uid: 'one' });
    assert.equal(ask('one'), undefined);
  });
});
