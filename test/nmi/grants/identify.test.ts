import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { CallerConnection } from '../../../src/nmi/grants/caller.ts';
import { identify } from '../../../src/nmi/grants/identify.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import type { Attestation } from '../../../src/redirect/redirect.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

function answerTo(attestation: Attestation) {
  const pods = new PodIndex(new HandClock(), assert.ifError);
  pods.replace([createPod({ ips: ['10.0.0.1'] })]);
  const connection = new CallerConnection({ remoteIp: '10.0.0.1' }, attestation);
  const knowledge = { pods, isSynced: () => true, trustsAddresses: () => true };
  const identified = identify(connection, knowledge);
  assert.ok(identified.kind === 'refused');
  return { isPending: identified.isPending, ...renderRefusal(identified) };
}

describe('a caller without an attestation', () => {
  it('is told to try again on another connection while nobody can be looked up', () => {
    const why = 'the map of callers cannot be read';
    const answer = answerTo({ kind: 'unavailable', why });
    assert.equal(answer.status, 503);
    assert.equal(answer.reason, 'agent_not_synced');
    assert.equal(answer.retryAfterS, 1);
    assert.equal(answer.close, true);
    assert.equal(answer.isPending, false);
    assert.match(
      answer.body,
      /which pod opened this connection: the map of callers cannot be read/,
    );
  });

  it('is refused for good where there is no record of it', () => {
    const answer = answerTo({ kind: 'unattested' });
    assert.equal(answer.status, 403);
    assert.equal(answer.reason, 'caller_unattested');
    assert.equal(answer.close, true);
  });
});
