import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { answerToken, refuse, type Answer } from '../../../src/nmi/base/answers.ts';
import { CallerConnection } from '../../../src/nmi/callers/caller.ts';
import { CallerLimits } from '../../../src/nmi/server/caller-limits.ts';
import type { HostTokenEndpoint } from '../../../src/nmi/server/host-token.ts';
import type { PodPlaces } from '../../../src/nmi/callers/place.ts';
import type { RequestRecord } from '../../../src/nmi/server/request-record.ts';
import { HttpExchange, relayed, type Handled } from '../../../src/nmi/server/request.ts';
import { createRouter, type RouterOptions } from '../../../src/nmi/server/router.ts';
import type { TokenEndpoint } from '../../../src/nmi/server/token-endpoint.ts';
import { LoopDetection } from '../../../src/nmi/sources/imds/loop-detection.ts';
import { Waiters } from '../../../src/nmi/state/waiters.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const podIp = '10.0.0.5';
const token = '/metadata/identity/oauth2/token?resource=r';
const instance = '/metadata/instance';

interface Ask {
  readonly method?: string;
  readonly headers?: readonly string[];
  readonly ip?: string;
  readonly isGone?: boolean;
  readonly caller?: CallerConnection;
}

function open(over: Partial<RouterOptions> = {}, places?: PodPlaces) {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  pods.upsert(createPod({ ips: [podIp] }));
  const clusterState = { pods, places, isSynced: () => true, trusts: () => true };
  const calls: string[] = [];
  const records: RequestRecord[] = [];
  const bugs: unknown[] = [];
  const loopDetection = new LoopDetection();
  const waiters = new Waiters({ clock, maxWaiters: 10 });
  const route = createRouter({
    metadataHeaderRequired: true,
    tokens: {
      handle: () => {
        calls.push('token');
        return answerToken('{}');
      },
    } as unknown as TokenEndpoint,
    hostTokens: {
      handle: (_exchange: unknown, query: string) => {
        calls.push(`host token ${query}`);
        return answerToken('{}');
      },
    } as unknown as HostTokenEndpoint,
    passthrough: {
      refusal: ({ area }) =>
        area === 'attested' ? refuse('metadata_blocked', 'closed') : undefined,
      relay: (_exchange, { path }) => {
        calls.push(`relay ${path}`);
        return Promise.resolve(relayed);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    clusterState,
    objectWait: {
      clock,
      waiters,
      limits: new CallerLimits({ fetches: 1, waiting: 1, pendingObjects: 10 }),
      maxWaitMs: 1_000,
    },
    loopDetection,
    clock,
    observer: { onRequest: (record) => records.push(record) },
    onBug: (error) => bugs.push(error),
    ...over,
  });
  function handle(target: string, options: Ask = {}): Handled | Promise<Handled> {
    const { method = 'GET', headers = ['Metadata', 'true'], isGone = false } = options;
    const byAddress = { kind: 'by-address' } as const;
    const { caller = new CallerConnection({ remoteIp: options.ip ?? podIp }, byAddress) } = options;
    const exchange = new HttpExchange(
      { method, url: target, rawHeaders: [...headers] } as unknown as IncomingMessage,
      { destroyed: isGone, closed: false } as ServerResponse,
      caller,
      clock.monotonicMs(),
      'id',
    );
    return route(exchange);
  }
  /** The reason of the answer, or that it was relayed. */
  async function ask(target: string, options: Ask = {}): Promise<string> {
    const handled = await handle(target, options);
    return handled === relayed ? 'relayed' : handled.reason;
  }
  return { clock, waiters, pods, calls, records, bugs, loopDetection, handle, ask };
}

describe('the checks of every request', () => {
  it('run in the order of the real service: path, method, forwarding, header, policy', async () => {
    const { ask, calls } = open();
    const post: Ask = { method: 'POST', headers: ['X-Forwarded-For', '1.2.3.4'] };
    assert.equal(await ask('/metadata/../x', post), 'path_invalid');
    assert.equal(await ask('/nothing', post), 'not_found');
    for (const target of [token, instance, '/metadata/attested']) {
      assert.equal(await ask(target, post), 'method_not_allowed');
      assert.equal(await ask(target, { headers: ['x-forwarded-for', ''] }), 'forwarded');
      for (const headers of [
        [],
        ['Metadata', 'True'],
        ['Metadata', 'false'],
        ['Metadata', 'true', 'Metadata', 'true'],
      ]) {
        assert.equal(await ask(target, { headers }), 'metadata_header_missing');
      }
    }
    assert.equal(await ask('/metadata/attested'), 'metadata_blocked');
    assert.deepEqual(calls, []);
  });

  it('require no header when that is off, and none for /host/token', async () => {
    const { ask, calls } = open({ metadataHeaderRequired: false });
    assert.equal(await ask(token, { headers: [] }), 'ok');
    const strict = open();
    assert.equal(await strict.ask('/host/token?resource=r', { headers: [] }), 'ok');
    assert.equal(await strict.ask('/host/token', { method: 'POST' }), 'method_not_allowed');
    assert.deepEqual([...calls, ...strict.calls], ['token', 'host token resource=r']);
  });

  it('list the allowed methods, with POST for scheduled events', async () => {
    const { handle, ask } = open();
    const answer = (await handle(token, { method: 'PUT' })) as Answer;
    assert.equal(answer.allow, 'GET');
    const events = '/metadata/scheduledevents';
    assert.equal(await ask(events, { method: 'POST' }), 'relayed');
    const other = (await handle(events, { method: 'PUT' })) as Answer;
    assert.equal(other.allow, 'GET, POST');
  });
});

describe('the routes', () => {
  it('lead to the named endpoint, and are recorded', async () => {
    const { ask, calls, records } = open();
    assert.equal(await ask(token), 'ok');
    assert.equal(await ask(instance), 'relayed');
    assert.equal(await ask('/host/token?resource=r'), 'ok');
    assert.equal(await ask('/nothing'), 'not_found');
    assert.deepEqual(calls, ['token', 'relay /metadata/instance', 'host token resource=r']);
    assert.deepEqual(
      records.map((record) => [record.route.kind, record.reason, record.pod?.name].join(' ')),
      ['token ok pod', 'passthrough ok pod', 'host-token ok ', 'refused not_found pod'],
    );
  });

  it('are recorded with the pod of the link, which is identified for later requests, too', async () => {
    const places = { isAlone: () => true, isOf: () => true } as unknown as PodPlaces;
    const { pods, ask, records } = open({}, places);
    const attestation = { kind: 'by-link', place: { link: 7 } } as const;
    const caller = new CallerConnection({ remoteIp: '10.0.0.9' }, attestation);
    caller.resolve(pods, places);
    pods.upsert(createPod({ name: 'late', ips: ['10.0.0.9'] }));
    assert.equal(await ask('/metadata/attested', { caller }), 'metadata_blocked');
    assert.equal(records[0]?.pod?.name, 'late');
    assert.equal(await ask(instance, { caller }), 'relayed');
  });

  it('have no /host/token when it is off', async () => {
    const { handle } = open({ hostTokens: undefined });
    const answer = (await handle('/host/token')) as Answer;
    assert.equal(answer.reason, 'not_found');
    assert.match(answer.body, /--enable-host-token turns it on/);
  });
});

describe('a request of the agent itself that returns to it', () => {
  it('is refused, and ends its connection', async () => {
    const { handle, ask, loopDetection } = open();
    const own = ['Metadata', 'true', 'x-ms-client-request-id', loopDetection.next()];
    const answer = (await handle(token, { headers: own, ip: '10.224.0.4' })) as Answer;
    assert.deepEqual([answer.reason, answer.close], ['loop_detected', true]);
    const others = ['Metadata', 'true', 'x-ms-client-request-id', new LoopDetection().next()];
    assert.equal(await ask(token, { headers: others, ip: '10.224.0.4' }), 'ok');
    assert.equal(await ask(token, { ip: '10.224.0.4' }), 'ok');
  });

  it('is refused even if the agent is a pod with an identity, and for relayed paths', async () => {
    const { ask, loopDetection } = open();
    const own = ['Metadata', 'true', 'x-ms-client-request-id', loopDetection.next()];
    for (const target of [token, instance]) {
      assert.equal(await ask(target, { headers: own }), 'loop_detected');
    }
  });
});

describe('a relayed request', () => {
  it('is only for known pods, and waits for the pod', async () => {
    const { clock, waiters, pods, handle, calls } = open();
    const unknown = handle(instance, { ip: '10.0.0.9' });
    await nextTurn();
    assert.equal(waiters.size, 1);
    clock.advance(1_000);
    assert.equal(((await unknown) as Answer).reason, 'pod_unknown');
    const late = handle(instance, { ip: '10.0.0.9' });
    await nextTurn();
    pods.upsert(createPod({ name: 'late', ips: ['10.0.0.9'] }));
    waiters.wake();
    assert.equal(await late, relayed);
    assert.deepEqual(calls, ['relay /metadata/instance']);
  });

  it('is not sent when the client has disconnected', async () => {
    const { ask, calls } = open();
    assert.equal(await ask(instance, { isGone: true }), 'relayed');
    assert.deepEqual(calls, []);
  });
});

describe('a bug', () => {
  it('gets a separate reason, and is reported, at once or later', async () => {
    const bug = new RangeError('bug');
    const broken = (handle: () => unknown) =>
      open({ tokens: { handle } as unknown as TokenEndpoint });
    const now = broken(() => {
      throw bug;
    });
    const later = broken(() => Promise.reject(bug));
    for (const { ask, bugs, records } of [now, later]) {
      assert.equal(await ask(token), 'internal_error');
      assert.deepEqual(bugs, [bug]);
      assert.deepEqual(
        records.map(({ reason }) => reason),
        ['internal_error'],
      );
    }
  });

  it('in the observer is reported like any other', async () => {
    let calls = 0;
    const { handle, bugs } = open({
      observer: {
        onRequest: () => {
          if (++calls === 1) throw new RangeError('observer');
        },
      },
    });
    assert.equal(((await handle('/nothing')) as Answer).reason, 'internal_error');
    assert.match(String(bugs[0]), /observer/);
  });
});
