import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { createPodManifest } from '../../../lab/fakes/kube/manifests.ts';
import type { Answer } from '../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import type { Exchange } from '../../../src/nmi/server/request.ts';
import { ask, type Reply } from '../../support/ask.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createPod,
} from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { longLived } from '../../support/token-fixture.ts';
import { world, type WorldGiven } from '../../world.ts';
import { untilMetric } from '../../support/until-metric.ts';
import { bindPodToA, openLoopbackAgent, type LoopbackAgent } from '../../support/loopback-agent.ts';

const flags = { 'enable-host-token': 'true' };
const own = { tuning: { imdsTimeoutMs: 10_000 } };

function askFor(agent: LoopbackAgent, pod: string, resource: string): Promise<Reply> {
  return ask(agent.client('127.0.0.1'), `/host/token/?resource=https://${resource}.example`, {
    headers: ['podns', 'default', 'podname', pod],
  });
}

/** Pod `default/p` is bound to an identity; its token is cached. */
function openFixture(given: WorldGiven = {}) {
  const clock = new HandClock();
  const fixture = world({
    ...given,
    clock,
    policy: { graceMs: 0 },
    tokens: {
      get: () => Promise.resolve({ ok: true, rendered: longLived, outcome: 'miss' }),
    },
  });
  fixture.pods.upsert(createPod({ name: 'p', uid: 'p', labels: { aadpodidbinding: 'label' } }));
  fixture.grants.identities.upsert(createIdentity({ clientId }));
  fixture.grants.bindings.upsert(createBinding());
  async function handle(
    ip: string,
    headers: Readonly<Record<string, string>>,
    query = 'resource=https://vault.example',
    whileWaiting: () => void = () => undefined,
  ): Promise<Answer> {
    const exchange = {
      caller: new CallerConnection({ remoteIp: ip }, { kind: 'by-address' }),
      startedAtMs: clock.monotonicMs(),
      isGone: false,
      headerValues: (name: string) => (headers[name] === undefined ? [] : [headers[name]]),
    } as unknown as Exchange;
    const answer = fixture.hostTokens.handle(exchange, query);
    if (answer instanceof Promise) {
      await nextTurn();
      whileWaiting();
      clock.advance(60_000);
    }
    return answer;
  }
  return { ...fixture, handle };
}

const headers = { podns: 'default', podname: 'p' };
const clientId = '22729e47-74ce-4b43-8eea-aab5f2073301';

describe('the answers of /host/token', () => {
  it('are only for processes of this host', async () => {
    const { handle } = openFixture();
    for (const ip of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) {
      assert.equal((await handle(ip, headers)).reason, 'ok', ip);
    }
    for (const ip of ['10.224.0.4', '128.0.0.1', '::2', '::ffff:10.0.0.1', '']) {
      const answer = await handle(ip, headers);
      assert.deepEqual([answer.status, answer.reason], [403, 'host_only'], ip);
    }
  });

  it('have the token of the named pod, with the client id of its identity', async () => {
    const { handle } = openFixture();
    const { status, body } = await handle('127.0.0.1', headers);
    assert.equal(status, 200);
    const { token, clientid } = JSON.parse(body) as Record<string, Record<string, unknown>>;
    assert.equal(token?.['access_token'], 'token');
    assert.equal(clientid, clientId);
  });

  it('have the client id from the token when the identity has none', async () => {
    const { handle, grants } = openFixture();
    const resourceId =
      '/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x';
    grants.identities.upsert(createIdentity({ clientId: '', resourceId }));
    const { body } = await handle('127.0.0.1', headers);
    assert.equal((JSON.parse(body) as Record<string, unknown>)['clientid'], 'client');
    grants.exceptions.upsert(createException({ podLabels: { aadpodidbinding: 'label' } }));
    const ofNode = await handle('127.0.0.1', headers);
    assert.equal((JSON.parse(ofNode.body) as Record<string, unknown>)['clientid'], 'client');
  });

  it('require the grant of the identity to the namespace, like those of the pod itself', async () => {
    const identityGrants = [{ namespaces: ['default'], clientIds: [clientId] }];
    const { handle, ownerIndex } = openFixture({ owners: 'enforce', identityGrants });
    assert.equal((await handle('127.0.0.1', headers)).reason, 'ok');
    ownerIndex.grants.replace([]);
    assert.equal((await handle('127.0.0.1', headers)).reason, 'identity_not_owned');
  });

  it('wait for a pod that is not known yet', async () => {
    const { handle, pods } = openFixture();
    const named = { podns: 'default', podname: 'new' };
    const answer = await handle('127.0.0.1', named, undefined, () =>
      pods.upsert(createPod({ name: 'new', uid: 'new', labels: { aadpodidbinding: 'label' } })),
    );
    assert.equal(answer.reason, 'ok');
  });

  it('require both names, and a resource', async () => {
    const { handle } = openFixture();
    for (const some of [{}, { podns: 'default' }, { podname: 'p' }, { podns: '', podname: 'p' }]) {
      assert.equal((await handle('127.0.0.1', some)).reason, 'parameter_missing');
    }
    assert.equal((await handle('127.0.0.1', headers, '')).reason, 'parameter_missing');
  });

  it('report that a pod is unknown, or not known yet, after a wait', async () => {
    const { handle, state } = openFixture();
    const other = await handle('127.0.0.1', { podns: 'other', podname: 'p' });
    assert.deepEqual([other.status, other.reason], [503, 'pod_unknown']);
    state.isSynced = false;
    assert.equal((await handle('127.0.0.1', headers)).reason, 'pod_unknown');
  });
});

describe('/host/token', () => {
  it('counts the fetches under the named pods, not under the process that names them', async () => {
    const names = Array.from({ length: 24 }, (_, index) => `pod-${index}`);
    await using agent = await openLoopbackAgent(
      flags,
      (kube) => {
        bindPodToA(kube);
        for (const [index, name] of names.entries()) {
          const ips = [`127.0.1.${index + 1}`];
          kube.apply(createPodManifest({ name, nodeName: 'node-1', ips, binding: 'app' }));
        }
      },
      own,
    );
    await agent.imds.setFaults({ delayMs: 100 });
    const replies = await Promise.all(names.map((name) => askFor(agent, name, name)));
    assert.deepEqual(
      replies.map(({ status }) => status),
      names.map(() => 200),
    );
  });

  it('serves fifty resources of one pod at the rate of the upstream, and refuses requests beyond that', async () => {
    await using agent = await openLoopbackAgent(flags, bindPodToA, own);
    await agent.imds.setFaults({ delayMs: 100 });
    const startMany = (count: number, name: string): readonly Promise<Reply>[] =>
      Array.from({ length: count }, (_, index) => askFor(agent, 'p', `${name}-${index}`));
    const statuses = (replies: readonly Reply[], status: number): number =>
      replies.filter((reply) => reply.status === status).length;
    const fifty = await Promise.all(startMany(50, 'fifty'));
    assert.equal(statuses(fifty, 200), 50);
    // A caller may have 64 connections, and those of the first fifty may still be closing.
    await untilMetric(agent, 'nmi_connections', 0);
    // A busy machine may take seconds to read the last.
    await agent.imds.setFaults({ delayMs: 3_000 });
    const started = startMany(64, 'more');
    const first = await Promise.race(started);
    await agent.imds.setFaults({});
    const more = await Promise.all(started);
    assert.equal(first.status, 429);
    assert.equal(statuses(more, 200) + statuses(more, 429), 64);
    assert.ok(statuses(more, 200) >= 50);
  });
});
