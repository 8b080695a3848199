import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createMetrics } from '../../../src/nmi/telemetry/metrics.ts';
import { CallerConnection } from '../../../src/nmi/grants/caller.ts';
import type { StandingRight } from '../../../src/nmi/server/standing-rights.ts';
import { createLogger } from '../../../src/nmi/base/logger.ts';
import { createObserver } from '../../../src/nmi/telemetry/telemetry.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const identity = { kind: 'client_id', value: '0a1b2c3d-0000-4000-8000-000000000001' } as const;
const failure = {
  ok: false,
  failure: { reason: 'upstream_down', description: 'no answer', holdMs: 0 },
} as const;

function open() {
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const metrics = createMetrics();
  return { lines, metrics, log, clock: new HandClock() };
}

describe('what is told of a hit', () => {
  it('names the address of its own connection, though pods’ connections share a right', () => {
    const { lines, metrics, log, clock } = open();
    const observer = createObserver(metrics, log, clock);
    const right: StandingRight = {
      target: '/',
      generation: 1,
      madeAtMs: 0,
      query: {
        resource: 'r',
        selector: { kind: 'none' },
        bypassCache: false,
        badTokenSha256: undefined,
      },
      cacheKey: 'k',
      authorization: {
        kind: 'authorized',
        pod: createPod({}),
        identity: undefined,
        by: 'binding',
        upstream: identity,
        auxiliary: [],
      },
    };
    for (const ip of ['10.0.0.1', '10.0.0.2', '10.0.0.1']) {
      const caller = new CallerConnection({ remoteIp: ip }, { kind: 'by-address' });
      observer.onHit({ caller, startedAtMs: 0, requestId: 'id' }, right);
    }
    const told = lines.join('').matchAll(/"podIp":"([^"]+)"/g);
    assert.deepEqual(
      [...told].map(([, ip]) => ip),
      ['10.0.0.1', '10.0.0.2', '10.0.0.1'],
    );
  });
});

describe('what is told of a fetch', () => {
  it('is told when the turn is over, so that the answer comes first', async () => {
    const { lines, metrics, log, clock } = open();
    createObserver(metrics, log, clock).onFetch(identity, failure, 20);
    assert.deepEqual(lines, []);
    await new Promise(setImmediate);
    assert.match(lines.join(''), /"reason":"upstream_down","durationMs":20,.*"token fetch failed"/);
  });

  it('ends nothing when it cannot be told', async () => {
    const { lines, metrics, log, clock } = open();
    const broken = {
      ...metrics,
      inc: () => {
        throw new RangeError('no such series');
      },
    };
    createObserver(broken, log, clock).onFetch(identity, failure, 20);
    await new Promise(setImmediate);
    assert.match(
      lines.join(''),
      /RangeError: no such series.*"failed to record request telemetry"/,
    );
  });
});
