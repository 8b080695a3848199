import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAccountUser } from '../../../../lab/fakes/kube/tokens.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createOwnAccount } from '../../../../src/nmi/kube/accounts/own-account.ts';
import { clientOf } from './kube-test-bed.ts';

const account = { namespace: 'kube-system', name: 'nmi' };
const pod = { name: 'nmi-x7k2p', uid: 'pod-uid' };

describe("the agent's own account", () => {
  it('is the service account and the pod that the API server reports', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.user = createAccountUser({ ...account, pod });
    const own = createOwnAccount({ client });
    const expected = { kind: 'ok', serviceAccount: account, pod };
    assert.deepEqual(await own.get(), expected);
  });

  it('has no pod when the token is bound to none, or to one that cannot be read', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const user = createAccountUser(account);
    const podName = 'authentication.kubernetes.io/pod-name';
    const podUid = 'authentication.kubernetes.io/pod-uid';
    for (const extra of [
      {},
      { [podName]: ['x'] },
      { [podName]: ['x'], [podUid]: [''] },
      { [podName]: ['x', 'y'], [podUid]: ['u'] },
    ]) {
      fake.user = { ...user, extra };
      assert.deepEqual(await createOwnAccount({ client }).get(), {
        kind: 'ok',
        serviceAccount: account,
        pod: undefined,
      });
    }
  });

  it('is requested once, by any number of callers, and never again', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.user = createAccountUser(account);
    const own = createOwnAccount({ client });
    const outcomes = await Promise.all(Array.from({ length: 50 }, () => own.get()));
    assert.ok(outcomes.every(({ kind }) => kind === 'ok'));
    await own.get();
    assert.equal(fake.requests.length, 1);
  });

  it('is requested again after a failure', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.user = createAccountUser(account);
    const own = createOwnAccount({ client });
    fake.faults.failNext(1, 503);
    assert.deepEqual(await own.get(), {
      kind: 'unavailable',
      problem: 'status 503',
      retryAfterMs: undefined,
    });
    fake.faults.failNext(1, 403);
    assert.deepEqual(await own.get(), { kind: 'forbidden', said: 'failed on purpose' });
    assert.equal((await own.get()).kind, 'ok');
  });

  it('is missing for a user that is not a service account', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    const own = createOwnAccount({ client });
    for (const username of [
      'kubernetes-admin',
      'system:node:node-a',
      'system:serviceaccount:only',
      'system:serviceaccount:a:b:c',
    ]) {
      fake.user = { username, groups: [] };
      assert.deepEqual(await own.get(), { kind: 'no_service_account', username });
    }
    fake.user = { username: '', groups: [] };
    assert.equal((await own.get()).kind, 'unavailable');
  });

  it('does not block a caller that gives up, and is still cached later', async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    fake.user = createAccountUser(account);
    const own = createOwnAccount({ client });
    const stop = new AbortController();
    const given = own.get(stop.signal);
    stop.abort(new Error('enough'));
    await assert.rejects(given, /^Error: enough$/);
    assert.equal((await own.get()).kind, 'ok');
    assert.equal(fake.requests.length, 1);
  });
});
