import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openFakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import { asRecord, parseRecord } from '../../../../../src/base/json-value.ts';
import { openCredentialCache } from '../../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import { openPodAssertions } from '../../../../../src/nmi/sources/entra/credentials/federated.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { clientOf, rawPod } from '../../../../unit/nmi/kube/kube-test-bed.ts';
import {
  assertionOf,
  audience,
  claimsOf,
  failureOf,
  hourMs,
  minuteMs,
  openFixture,
  podIdentity,
} from '../federated-fixture.ts';

describe('the assertion of a pod', () => {
  it('is a token of its service account for the audience, bound to the pod', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'demo' } });
    const uid = fake.apply(rawPod('one')).metadata.uid!;
    const clock = new HandClock(Date.now());
    const livePodOf = () => ({ name: 'one', uid });
    using clientCredentials = openCredentialCache({
      ...openPodAssertions({ tokenClient: client, clock, livePodOf }),
      ...{ clock, isNeeded: () => true, maxKept: 256 },
    });
    const { credential } = podIdentity('demo', { namespace: 'default' });
    const assertion = assertionOf(
      await clientCredentials.get(credential, AbortSignal.timeout(5_000)),
    );
    const [, payload = ''] = assertion.split('.');
    const claims = parseRecord(Buffer.from(payload, 'base64url').toString('utf8'));
    assert.deepEqual(claims?.['aud'], [audience]);
    assert.equal(claims?.['sub'], 'system:serviceaccount:default:demo');
    assert.deepEqual(asRecord(claims?.['kubernetes.io'])?.['pod'], { name: 'one', uid });
  });

  it('is used for an hour less five minutes, then replaced', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.clock.advance(55 * minuteMs - 1);
    assert.equal(await fixture.ask('a'), first);
    assert.equal(fixture.api.asked, 1);
    fixture.clock.advance(1);
    assert.notEqual(await fixture.ask('a'), first);
    assert.equal(fixture.api.asked, 2);
  });

  it('with a shorter life from the server is used for half of that', async () => {
    using fixture = openFixture({ a: 'u1' });
    fixture.api.grantS = 360;
    const first = await fixture.ask('a');
    fixture.clock.advance(3 * minuteMs - 1);
    assert.equal(await fixture.ask('a'), first);
    fixture.clock.advance(1);
    assert.notEqual(await fixture.ask('a'), first);
  });

  it('has a life that is counted from its request', async () => {
    using fixture = openFixture({ a: 'u1' });
    const asking = fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal);
    fixture.clock.advance(4_000);
    await fixture.api.landAll();
    const first = assertionOf(await asking);
    fixture.clock.advance(55 * minuteMs - 4_000 - 1);
    assert.equal(await fixture.ask('a'), first);
    fixture.clock.advance(1);
    assert.notEqual(await fixture.ask('a'), first);
  });

  it('is requested once for all concurrent callers', async () => {
    using fixture = openFixture({ a: 'u1' });
    const gets = Array.from({ length: 1_000 }, () =>
      fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal),
    );
    await nextTurn();
    assert.equal(fixture.api.asked, 1);
    await fixture.api.landAll();
    assert.equal(new Set((await Promise.all(gets)).map(assertionOf)).size, 1);
  });

  it('is separate for each namespace, service account and audience', async () => {
    using fixture = openFixture({ a: 'u1', b: 'u2' });
    const identities = [
      podIdentity('a'),
      podIdentity('b'),
      podIdentity('a', { audience: 'api://another' }),
      podIdentity('a', { namespace: 'other' }),
    ];
    for (const identity of [...identities, ...identities]) {
      const claims = claimsOf(assertionOf(await fixture.get(identity)));
      const { serviceAccount } = identity.credential;
      assert.equal(claims.subject, `${serviceAccount.namespace}/${serviceAccount.name}`);
      assert.equal(claims.audience, identity.credential.audience);
    }
    assert.equal(fixture.api.asked, 4);
  });

  it('is used for all identities of one service account', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    const other = { ...podIdentity('a'), clientId: 'other', tenantId: 'other' };
    assert.equal(assertionOf(await fixture.get(other)), first);
  });

  it('is separate for another pod, and the old one is dropped', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.clock.advance(10 * minuteMs);
    fixture.pods.set('a', 'u2');
    const second = await fixture.ask('a');
    assert.equal(claimsOf(second).podUid, 'u2');
    assert.equal(fixture.clientCredentials.kept, 1);
    fixture.clock.advance(50 * minuteMs);
    assert.equal(await fixture.ask('a'), second, 'the end of the old one dropped the new one too');
    fixture.pods.set('a', 'u1');
    assert.notEqual(await fixture.ask('a'), first);
  });

  it('is missing without a live pod, and dropped', async () => {
    using fixture = openFixture({ a: 'u1' });
    await fixture.ask('a');
    fixture.pods.delete('a');
    const failure = failureOf(await fixture.get(podIdentity('a')));
    assert.equal(failure.reason, 'credential_missing');
    assert.match(failure.description, /^No live pod .* service account ns\/a$/);
    assert.equal(fixture.clientCredentials.kept, 0);
    assert.equal(fixture.api.asked, 1);
  });

  it('is not cached when its pod was deleted during the request', async () => {
    using fixture = openFixture({ a: 'u1' });
    const asking = fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal);
    fixture.pods.set('a', 'u2');
    const next = fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal);
    await nextTurn();
    assert.equal(fixture.api.open.length, 2);
    // The successor's arrives first, the predecessor's must not replace it.
    fixture.api.land(1);
    fixture.api.land(0);
    const [old, current] = (await Promise.all([asking, next])).map(assertionOf);
    assert.deepEqual([claimsOf(old!).podUid, claimsOf(current!).podUid], ['u1', 'u2']);
    assert.equal(await fixture.ask('a'), current);
  });

  it('leaves memory when it expires, and with dropUnneeded when its pod is deleted', async () => {
    using fixture = openFixture({ a: 'u1', b: 'u2' });
    await fixture.ask('a');
    await fixture.ask('b');
    await fixture.askNode();
    fixture.pods.delete('b');
    fixture.clientCredentials.dropUnneeded();
    assert.equal(fixture.clientCredentials.kept, 2);
    fixture.clock.advance(hourMs);
    assert.equal(fixture.clientCredentials.kept, 0);
    assert.deepEqual(fixture.clock.armed, []);
  });

  it('leaves memory when no identity needs it, and does not return until one does', async () => {
    const needed = new Set(['a', 'b', 'node']);
    using fixture = openFixture(
      { a: 'u1', b: 'u2' },
      {
        isNeeded: (credential) =>
          needed.has(
            credential.kind === 'federated_pod' ? credential.serviceAccount.name : 'node',
          ) && credential.audience === audience,
      },
    );
    const first = await fixture.ask('a');
    await fixture.ask('b');
    await fixture.askNode();
    assert.equal(fixture.clientCredentials.kept, 3);
    for (const name of ['b', 'node']) needed.delete(name);
    fixture.clientCredentials.dropUnneeded();
    assert.equal(fixture.clientCredentials.kept, 1);
    await fixture.ask('b');
    await fixture.askNode();
    assert.equal(fixture.clientCredentials.kept, 1, 'an earlier request is not cached later');
    assert.equal(await fixture.ask('a'), first);
  });

  it('is limited in number, and the least recently used is evicted first', async () => {
    using fixture = openFixture({ a: 'u1', b: 'u2', c: 'u3' }, { maxKept: 2 });
    const first = await fixture.ask('a');
    await fixture.ask('b');
    await fixture.ask('a');
    await fixture.ask('c');
    assert.equal(fixture.clientCredentials.kept, 2);
    assert.equal(await fixture.ask('a'), first);
    assert.equal(fixture.api.asked, 3);
    await fixture.ask('b');
    assert.equal(fixture.api.asked, 4);
  });

  it('that was refused is dropped once, and a new one is not confused with it', async () => {
    using fixture = openFixture({ a: 'u1' });
    assert.equal(
      fixture.clientCredentials.pod.forget(podIdentity('a')),
      false,
      'none was returned before',
    );
    const first = await fixture.ask('a');
    assert.equal(await fixture.ask('a'), first, 'from memory');
    const refused = fixture.clientCredentials.pod.latest(podIdentity('a'));
    // Each caller with the refused one may try another, in any order.
    assert.equal(fixture.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    assert.equal(fixture.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    const asking = fixture.clientCredentials.pod.get(podIdentity('a'), fixture.signal);
    await fixture.api.landAll();
    const second = assertionOf(await asking);
    assert.notEqual(second, first);
    assert.equal(fixture.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    assert.equal(await fixture.ask('a'), second, 'which stays');
    assert.equal(fixture.api.asked, 2);
  });

  it('is not returned to a caller that gives up, and is cached for the next', async () => {
    using fixture = openFixture({ a: 'u1' });
    const stop = new AbortController();
    const given = fixture.clientCredentials.pod.get(podIdentity('a'), stop.signal);
    stop.abort(new Error('enough'));
    await assert.rejects(given, /^Error: enough$/);
    await fixture.api.landAll();
    await fixture.ask('a');
    assert.equal(fixture.api.asked, 1);
  });

  it('is neither kept nor armed after disposal', async () => {
    const fixture = openFixture({ a: 'u1', b: 'u2' });
    await fixture.ask('a');
    const late = fixture.clientCredentials.pod.get(podIdentity('b'), fixture.signal);
    fixture[Symbol.dispose]();
    await fixture.api.landAll();
    assertionOf(await late);
    assert.equal(fixture.clientCredentials.kept, 0);
    assert.deepEqual(fixture.clock.armed, []);
  });
});

describe('an assertion and the clocks', () => {
  it('gets no longer life from a wall clock that went back', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.clock.jumpWall(-hourMs);
    fixture.clock.advance(55 * minuteMs - 1);
    assert.equal(await fixture.ask('a'), first);
    fixture.clock.advance(1);
    assert.notEqual(await fixture.ask('a'), first);
  });

  it('gets no longer life from a wall clock that was behind from the start', async () => {
    using fixture = openFixture({ a: 'u1' });
    fixture.clock.jumpWall(-2 * hourMs);
    const first = await fixture.ask('a');
    fixture.clock.advance(55 * minuteMs);
    assert.notEqual(await fixture.ask('a'), first);
  });

  it('costs a request each time with a wall clock ahead, and is used again once it is right', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.clock.jumpWall(hourMs);
    const second = await fixture.ask('a');
    assert.notEqual(second, first);
    assert.notEqual(await fixture.ask('a'), second);
    assert.equal(fixture.api.asked, 3);
    fixture.clock.jumpWall(-hourMs);
    assert.equal(await fixture.ask('a'), first);
  });

  it('is requested again after the machine slept, although its monotonic clock stood still', async () => {
    using fixture = openFixture({ a: 'u1' });
    const first = await fixture.ask('a');
    fixture.api.sleep(hourMs);
    const second = await fixture.ask('a');
    assert.notEqual(second, first);
    assert.equal(await fixture.ask('a'), second);
  });
});
