import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { outcomeOfFailure } from '../../../../src/nmi/kube/api/call-outcome.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';

describe('a call that fails', () => {
  it('is forbidden with the text of the server', () => {
    const failure = new KubeError('FORBIDDEN', 'no right', { status: 403 });
    assert.deepEqual(outcomeOfFailure(failure), { kind: 'forbidden', said: 'no right' });
  });

  it('is otherwise transient, with a short reason and the requested wait', () => {
    const throttled = new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs: 9 });
    assert.deepEqual(outcomeOfFailure(throttled), {
      kind: 'unavailable',
      problem: 'THROTTLED',
      retryAfterMs: 9,
    });
    const problemOf = (failure: KubeError) => {
      const outcome = outcomeOfFailure(failure);
      return outcome.kind === 'unavailable' && outcome.problem;
    };
    assert.equal(problemOf(new KubeError('SERVER', 'x', { status: 502 })), 'status 502');
    assert.equal(problemOf(new KubeError('SERVER', 'x')), 'status 0');
    assert.equal(problemOf(new KubeError('NETWORK', 'x')), 'NETWORK');
  });

  it('is thrown again if it is not a failure of the API', () => {
    const bug = new TypeError('bug');
    assert.throws(() => outcomeOfFailure(bug), bug);
  });
});
