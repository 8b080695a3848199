import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StatusRight } from '../../../src/nmi/conditions/status-right.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { HandClock } from '../../support/hand-clock.ts';

const minute = 60_000;

function open() {
  const clock = new HandClock();
  const server = { answer: { status: { allowed: true } } as unknown, calls: [] as unknown[] };
  const postJson = (path: string, body: unknown): Promise<unknown> => {
    server.calls.push([path, body]);
    const { answer } = server;
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  };
  const right = new StatusRight({ postJson }, clock);
  return { clock, server, right };
}

describe('the right to the status of a kind', () => {
  it('is asked for as the API defines it, and again after a minute', async () => {
    const { clock, server, right } = open();
    assert.ok(right.has('binding'));
    await right.check('binding', {});
    assert.deepEqual(server.calls, [
      [
        '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
        {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SelfSubjectAccessReview',
          spec: {
            resourceAttributes: {
              group: 'aadpodidentity.k8s.io',
              resource: 'azureidentitybindings',
              subresource: 'status',
              verb: 'patch',
            },
          },
        },
      ],
    ]);
    await right.check('binding', {});
    assert.equal(server.calls.length, 1);
    await right.check('identity', {});
    assert.equal(server.calls.length, 2, 'each kind has its own');
    clock.advance(minute);
    await right.check('binding', {});
    assert.equal(server.calls.length, 3);
    assert.ok(right.has('binding'));
  });

  for (const [what, answer] of [
    ['is denied', { status: { allowed: false } }],
    ['is not confirmed', { status: {} }],
    ['may not be asked for', new KubeError('FORBIDDEN', 'no', { status: 403 })],
  ] as const) {
    it(`is missing for ten minutes when it ${what}`, async () => {
      const { clock, server, right } = open();
      server.answer = answer;
      await right.check('identity', {});
      assert.deepEqual([right.has('identity'), right.has('binding')], [false, true]);
      clock.advance(10 * minute - 1);
      assert.deepEqual(right.takeDue(clock.monotonicMs()), []);
      clock.advance(1);
      assert.deepEqual(right.takeDue(clock.monotonicMs()), ['identity']);
      assert.ok(right.has('identity'));
      assert.deepEqual(right.takeDue(clock.monotonicMs()), []);
    });
  }

  it('is unchanged when the server does not answer', async () => {
    const { server, right } = open();
    server.answer = new KubeError('NETWORK', 'away');
    await assert.rejects(right.check('identity', {}), { code: 'NETWORK' });
    assert.ok(right.has('identity'));
  });
});
