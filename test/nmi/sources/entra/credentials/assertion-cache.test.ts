import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openFakeKube } from '../../../../../lab/fakes/kube/fake-kube.ts';
import { asRecord, parseRecord } from '../../../../../src/nmi/base/json-value.ts';
import { openPodCredentials } from '../../../../../src/nmi/sources/entra/credentials/federated.ts';
import type { ClientCredentialResult } from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import type { SourceFailure } from '../../../../../src/nmi/sources/source.ts';
import { HandClock } from '../../../../support/hand-clock.ts';
import { clientOf, rawPod } from '../../../kube/kube-test-bed.ts';
import {
  assertionOf,
  audience,
  claimsOf,
  hourMs,
  minuteMs,
  openStand,
  podIdentity,
} from '../federated-stand.ts';

function failureOf(result: ClientCredentialResult): SourceFailure {
  assert.ok(!result.ok);
  return result.failure;
}

describe('the assertion of a pod', () => {
  it('is a token of its service account for the audience, bound to the pod', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'demo' } });
    const uid = fake.apply(rawPod('one')).metadata.uid!;
    using clientCredentials = openPodCredentials({
      client,
      clock: new HandClock(Date.now()),
      isNeeded: () => true,
      livePodOf: () => ({ name: 'one', uid }),
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

  it('serves for an hour less five minutes, then another does', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    stand.clock.advance(55 * minuteMs - 1);
    assert.equal(await stand.ask('a'), first);
    assert.equal(stand.api.asked, 1);
    stand.clock.advance(1);
    assert.notEqual(await stand.ask('a'), first);
    assert.equal(stand.api.asked, 2);
  });

  it('that the server grants a shorter life serves for half of that', async () => {
    using stand = openStand({ a: 'u1' });
    stand.api.grantS = 360;
    const first = await stand.ask('a');
    stand.clock.advance(3 * minuteMs - 1);
    assert.equal(await stand.ask('a'), first);
    stand.clock.advance(1);
    assert.notEqual(await stand.ask('a'), first);
  });

  it('counts its life from when it was asked for', async () => {
    using stand = openStand({ a: 'u1' });
    const asking = stand.clientCredentials.pod.get(podIdentity('a'), stand.signal);
    stand.clock.advance(4_000);
    await stand.api.landAll();
    const first = assertionOf(await asking);
    stand.clock.advance(55 * minuteMs - 4_000 - 1);
    assert.equal(await stand.ask('a'), first);
    stand.clock.advance(1);
    assert.notEqual(await stand.ask('a'), first);
  });

  it('is asked for once by all who want it at the same time', async () => {
    using stand = openStand({ a: 'u1' });
    const gets = Array.from({ length: 1_000 }, () =>
      stand.clientCredentials.pod.get(podIdentity('a'), stand.signal),
    );
    await nextTurn();
    assert.equal(stand.api.asked, 1);
    await stand.api.landAll();
    assert.equal(new Set((await Promise.all(gets)).map(assertionOf)).size, 1);
  });

  it('is kept apart by namespace, service account and audience', async () => {
    using stand = openStand({ a: 'u1', b: 'u2' });
    const identities = [
      podIdentity('a'),
      podIdentity('b'),
      podIdentity('a', { audience: 'api://another' }),
      podIdentity('a', { namespace: 'other' }),
    ];
    for (const identity of [...identities, ...identities]) {
      const claims = claimsOf(assertionOf(await stand.get(identity)));
      const { serviceAccount } = identity.credential;
      assert.equal(claims.subject, `${serviceAccount.namespace}/${serviceAccount.name}`);
      assert.equal(claims.audience, identity.credential.audience);
    }
    assert.equal(stand.api.asked, 4);
  });

  it('serves all identities of one service account', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    const other = { ...podIdentity('a'), clientId: 'other', tenantId: 'other' };
    assert.equal(assertionOf(await stand.get(other)), first);
  });

  it('is another for another pod, and the old one is gone', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    stand.clock.advance(10 * minuteMs);
    stand.pods.set('a', 'u2');
    const second = await stand.ask('a');
    assert.equal(claimsOf(second).podUid, 'u2');
    assert.equal(stand.clientCredentials.kept, 1);
    stand.clock.advance(50 * minuteMs);
    assert.equal(await stand.ask('a'), second, 'the end of the old one took the new one along');
    stand.pods.set('a', 'u1');
    assert.notEqual(await stand.ask('a'), first);
  });

  it('is missing without a live pod, and forgotten', async () => {
    using stand = openStand({ a: 'u1' });
    await stand.ask('a');
    stand.pods.delete('a');
    const failure = failureOf(await stand.get(podIdentity('a')));
    assert.equal(failure.reason, 'credential_missing');
    assert.match(failure.description, /^No live pod .* service account ns\/a$/);
    assert.equal(stand.clientCredentials.kept, 0);
    assert.equal(stand.api.asked, 1);
  });

  it('is not kept when its pod went while it was made', async () => {
    using stand = openStand({ a: 'u1' });
    const asking = stand.clientCredentials.pod.get(podIdentity('a'), stand.signal);
    stand.pods.set('a', 'u2');
    const next = stand.clientCredentials.pod.get(podIdentity('a'), stand.signal);
    await nextTurn();
    assert.equal(stand.api.open.length, 2);
    // The successor's comes first, the predecessor's must not take its place.
    stand.api.land(1);
    stand.api.land(0);
    const [old, current] = (await Promise.all([asking, next])).map(assertionOf);
    assert.deepEqual([claimsOf(old!).podUid, claimsOf(current!).podUid], ['u1', 'u2']);
    assert.equal(await stand.ask('a'), current);
  });

  it('leaves memory when its time is up, and with dropUnneeded when its pod is gone', async () => {
    using stand = openStand({ a: 'u1', b: 'u2' });
    await stand.ask('a');
    await stand.ask('b');
    await stand.askNode();
    stand.pods.delete('b');
    stand.clientCredentials.dropUnneeded();
    assert.equal(stand.clientCredentials.kept, 2);
    stand.clock.advance(hourMs);
    assert.equal(stand.clientCredentials.kept, 0);
    assert.deepEqual(stand.clock.armed, []);
  });

  it('leaves memory when no identity needs it, and does not come back while none does', async () => {
    const needed = new Set(['a', 'b', 'node']);
    using stand = openStand(
      { a: 'u1', b: 'u2' },
      {
        isNeeded: (credential) =>
          needed.has(
            credential.kind === 'federated_pod' ? credential.serviceAccount.name : 'node',
          ) && credential.audience === audience,
      },
    );
    const first = await stand.ask('a');
    await stand.ask('b');
    await stand.askNode();
    assert.equal(stand.clientCredentials.kept, 3);
    for (const name of ['b', 'node']) needed.delete(name);
    stand.clientCredentials.dropUnneeded();
    assert.equal(stand.clientCredentials.kept, 1);
    await stand.ask('b');
    await stand.askNode();
    assert.equal(stand.clientCredentials.kept, 1, 'what was asked for before is not kept after');
    assert.equal(await stand.ask('a'), first);
  });

  it('takes a bounded place, the least recently used out first', async () => {
    using stand = openStand({ a: 'u1', b: 'u2', c: 'u3' }, { maxKept: 2 });
    const first = await stand.ask('a');
    await stand.ask('b');
    await stand.ask('a');
    await stand.ask('c');
    assert.equal(stand.clientCredentials.kept, 2);
    assert.equal(await stand.ask('a'), first);
    assert.equal(stand.api.asked, 3);
    await stand.ask('b');
    assert.equal(stand.api.asked, 4);
  });

  it('that was refused is forgotten once; a new one is not taken for it', async () => {
    using stand = openStand({ a: 'u1' });
    assert.equal(stand.clientCredentials.pod.forget(podIdentity('a')), false, 'it never gave one');
    const first = await stand.ask('a');
    const refused = stand.clientCredentials.pod.latest(podIdentity('a'));
    // Each that had it refused may try another, in whatever order they hear of it.
    assert.equal(stand.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    assert.equal(stand.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    const asking = stand.clientCredentials.pod.get(podIdentity('a'), stand.signal);
    await stand.api.landAll();
    const second = assertionOf(await asking);
    assert.notEqual(second, first);
    assert.equal(stand.clientCredentials.pod.forget(podIdentity('a'), refused), true);
    assert.equal(await stand.ask('a'), second, 'which stays');
    assert.equal(stand.api.asked, 2);
  });

  it('does not come to one who gives up, and is there for the next', async () => {
    using stand = openStand({ a: 'u1' });
    const stop = new AbortController();
    const given = stand.clientCredentials.pod.get(podIdentity('a'), stop.signal);
    stop.abort(new Error('enough'));
    await assert.rejects(given, /^Error: enough$/);
    await stand.api.landAll();
    await stand.ask('a');
    assert.equal(stand.api.asked, 1);
  });

  it('is neither kept nor armed after disposal', async () => {
    const stand = openStand({ a: 'u1', b: 'u2' });
    await stand.ask('a');
    const late = stand.clientCredentials.pod.get(podIdentity('b'), stand.signal);
    stand[Symbol.dispose]();
    await stand.api.landAll();
    assertionOf(await late);
    assert.equal(stand.clientCredentials.kept, 0);
    assert.deepEqual(stand.clock.armed, []);
  });
});

describe('an assertion and the clocks', () => {
  it('a wall clock that went back lends it no life', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    stand.clock.jumpWall(-hourMs);
    stand.clock.advance(55 * minuteMs - 1);
    assert.equal(await stand.ask('a'), first);
    stand.clock.advance(1);
    assert.notEqual(await stand.ask('a'), first);
  });

  it('a wall clock that was behind from the start lends it none either', async () => {
    using stand = openStand({ a: 'u1' });
    stand.clock.jumpWall(-2 * hourMs);
    const first = await stand.ask('a');
    stand.clock.advance(55 * minuteMs);
    assert.notEqual(await stand.ask('a'), first);
  });

  it('a wall clock that is ahead costs a request each time, and serves again when it is right', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    stand.clock.jumpWall(hourMs);
    const second = await stand.ask('a');
    assert.notEqual(second, first);
    assert.notEqual(await stand.ask('a'), second);
    assert.equal(stand.api.asked, 3);
    stand.clock.jumpWall(-hourMs);
    assert.equal(await stand.ask('a'), first);
  });

  it('a machine that slept asks anew, though its monotonic clock stood still', async () => {
    using stand = openStand({ a: 'u1' });
    const first = await stand.ask('a');
    stand.api.sleep(hourMs);
    const second = await stand.ask('a');
    assert.notEqual(second, first);
    assert.equal(await stand.ask('a'), second);
  });
});
