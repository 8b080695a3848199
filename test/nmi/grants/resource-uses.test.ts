import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Grant } from '../../../src/nmi/grants/grant.ts';
import { renderRefusal } from '../../../src/nmi/grants/refusal-text.ts';
import { ResourceUses } from '../../../src/nmi/grants/resource-uses.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createGrant } from '../../support/request-records.ts';

function grantOf(uid: string, client = 'one') {
  const upstream = { kind: 'client_id', value: client } as const;
  return createGrant({ pod: createPod({ name: uid, uid }), upstream });
}

function open() {
  const clock = new HandClock();
  const uses = new ResourceUses(clock);
  const beyond: string[] = [];
  const admit = (grant: Grant, resource: string): Grant =>
    uses.admit(grant, resource, (limitKey) => beyond.push(limitKey));
  /** How many of these resources the pod may have. */
  const count = (uid: string, from: number, to: number): number => {
    let admitted = 0;
    for (let use = from; use < to; use++) {
      if (admit(grantOf(uid), `api://${use}`).kind === 'granted') admitted += 1;
    }
    return admitted;
  };
  return { clock, uses, beyond, admit, count };
}

describe('the resources of a pod', () => {
  it('are at most 600 new ones in a minute; those beyond are refused until it ends', () => {
    const { clock, beyond, admit, count } = open();
    assert.equal(count('a', 0, 600), 600);
    assert.equal(count('a', 0, 600), 600, 'known ones are never refused');
    assert.deepEqual(beyond, []);
    clock.advance(20_500);
    const refused = admit(grantOf('a'), 'api://600');
    assert.ok(refused.kind === 'refused');
    const answer = renderRefusal(refused);
    assert.deepEqual(
      [answer.status, answer.reason, answer.retryAfterS],
      [429, 'caller_throttled', 40],
    );
    assert.match(answer.body, /600 new resources within a minute\. Retry in 40 s\./);
    assert.deepEqual(beyond, ['pod a']);
    assert.equal(admit(grantOf('b'), 'api://600').kind, 'granted', 'another pod has its own');
    assert.equal(admit(grantOf('a', 'two'), 'api://0').kind, 'refused', 'another identity');
    clock.advance(39_499);
    assert.equal(admit(grantOf('a'), 'api://600').kind, 'refused');
    clock.advance(1);
    assert.equal(admit(grantOf('a'), 'api://600').kind, 'granted');
    assert.equal(count('a', 1, 601), 600);
  });

  it('count by the token that they get, an object id by its text', () => {
    const { admit, count } = open();
    assert.equal(count('a', 0, 598), 598);
    assert.equal(admit(grantOf('a'), 'https://Vault.azure.net/').kind, 'granted');
    const pod = createPod({ name: 'a', uid: 'a' });
    const byObjectId = (objectId: string): Grant => ({
      kind: 'by-object-id',
      pod,
      candidates: [],
      objectId,
    });
    assert.equal(admit(byObjectId('x'), 'https://vault.azure.net').kind, 'by-object-id');
    assert.equal(admit(byObjectId('x'), 'https://VAULT.azure.net').kind, 'by-object-id');
    assert.equal(admit(grantOf('a'), 'https://vault.azure.net').kind, 'granted');
    assert.equal(admit(byObjectId('y'), 'https://vault.azure.net').kind, 'refused');
    assert.equal(admit(grantOf('a'), 'https://storage.azure.com').kind, 'refused');
  });

  it('leave a refused pod as it is', () => {
    const { admit, count } = open();
    const refused = {
      kind: 'refused',
      reason: 'pod_unknown',
      facts: { about: 'unknown-name' },
      isPending: true,
      pod: undefined,
    } as const;
    assert.equal(admit(refused, 'r'), refused);
    assert.equal(count('a', 0, 600), 600);
  });

  it('are first tokens once each, also if another pod has it and if no request was counted', () => {
    const { uses } = open();
    const first = (uid: string, resource: string) => uses.isFirst(grantOf(uid), resource);
    assert.deepEqual(
      [first('a', 'x'), first('a', 'X/'), first('a', 'y'), first('b', 'x'), first('a', 'x')],
      [true, false, true, true, false],
    );
  });

  it('are each a first token, however many requests came before', () => {
    const { clock, uses, admit } = open();
    const [served, first] = [new Set<number>(), new Set<number>()];
    // Two minutes of a pod that asks for 30 resources a second, and repeats earlier ones.
    for (let use = 0; use < 3_600; use++) {
      clock.advance(33);
      for (const each of [use, use - 100, use - 599]) {
        if (each < 0 || admit(grantOf('a'), `api://${each}`).kind !== 'granted') continue;
        served.add(each);
        if (uses.isFirst(grantOf('a'), `api://${each}`)) first.add(each);
      }
    }
    assert.deepEqual(first, served);
    assert.equal(served.size, 1_200);
  });

  it('are remembered for 600 resources and 512 pods', () => {
    const { clock, uses, count } = open();
    const first = (uid: string, resource: string) => uses.isFirst(grantOf(uid), resource);
    assert.equal(count('a', 0, 600), 600);
    assert.ok(first('a', 'api://0'));
    clock.advance(60_000);
    assert.equal(count('a', 600, 601), 1);
    assert.ok(first('a', 'api://0'), 'the oldest is forgotten, and recorded once more');
    assert.ok(first('a', 'api://600'));
    for (let pod = 0; pod < 511; pod++) first(`pod ${pod}`, 'x');
    assert.ok(!first('a', 'api://600'));
    first('pod 511', 'x');
    assert.ok(first('a', 'api://600'));
  });
});
