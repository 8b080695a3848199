import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAccountUser } from '../../../../../lab/fakes/kube/tokens.ts';
import { openFakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import { createOwnAccount } from '../../../../../src/nmi/kube/accounts/own-account.ts';
import { openCredentialCache } from '../../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import { openNodeAssertions } from '../../../../../src/nmi/sources/entra/credentials/federated.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { clientOf } from '../../../../unit/nmi/kube/kube-test-bed.ts';
import {
  agentPod,
  assertionOf,
  audience,
  claimsOf,
  failureOf,
  nodeIdentity,
  openFixture,
  podIdentity,
} from '../federated-fixture.ts';

describe('the assertion of the node', () => {
  it("is a token of the agent's service account, bound to its pod, for all identities", async () => {
    using fixture = openFixture({});
    const first = await fixture.askNode();
    assert.deepEqual(claimsOf(first), {
      ...claimsOf(first),
      subject: 'kube-system/nmi',
      audience,
      podUid: agentPod.uid,
    });
    const other = { ...nodeIdentity(), clientId: 'other' };
    assert.equal(assertionOf(await fixture.get(other)), first);
    assert.equal(fixture.api.asked, 1);
    assert.equal(fixture.clientCredentials.node.forget(nodeIdentity()), true);
    assert.notEqual(await fixture.askNode(), first);
  });

  it('is never that of a pod with the same service account', async () => {
    using fixture = openFixture({ nmi: 'u1' });
    const ofPod = await fixture.get(podIdentity('nmi', { namespace: 'kube-system' }));
    const ofNode = await fixture.askNode();
    assert.equal(claimsOf(assertionOf(ofPod)).podUid, 'u1');
    assert.equal(claimsOf(ofNode).podUid, agentPod.uid);
  });

  it('is bound to no pod when the agent runs in none', async () => {
    using fixture = openFixture({}, { account: { pod: undefined } });
    assert.equal(claimsOf(await fixture.askNode()).podUid, '');
  });

  it('needs the agent to be a service account', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const clock = new HandClock(Date.now());
    const ownAccount = createOwnAccount({ client });
    using clientCredentials = openCredentialCache({
      ...openNodeAssertions({ tokenClient: client, clock, ownAccount }),
      ...{ clock, isNeeded: () => true, maxKept: 256 },
    });
    const get = () => clientCredentials.get(nodeIdentity().credential, AbortSignal.timeout(5_000));
    const failure = failureOf(await get());
    assert.equal(failure.reason, 'credential_invalid');
    assert.match(failure.description, /authenticates the agent as kubernetes-admin, which is none/);
    fake.faults.failNext(1, 403);
    assert.match(
      failureOf(await get()).description,
      /may not read its own user name.*failed on purpose/,
    );
    fake.faults.failNext(1, 503);
    assert.equal(failureOf(await get()).reason, 'upstream_down');
    fake.user = createAccountUser({ namespace: 'default', name: 'nmi' });
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'nmi' } });
    assertionOf(await get());
  });
});
