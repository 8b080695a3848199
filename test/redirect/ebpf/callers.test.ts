import assert from 'node:assert/strict';
import { afterEach, before, describe, it, mock } from 'node:test';
import { freshNative } from '../../../scripts/native.ts';
import { attestSocket, whyUnanswered } from '../../../src/redirect/ebpf/callers.ts';
import { nativeModule, type CallerAnswer } from '../../../src/redirect/native/addon.ts';
import { nativeFailure } from './fake-kernel.ts';

before(freshNative);
afterEach(() => mock.restoreAll());

const unanswered = 'no program of this version answers for the sockets of this process';

/** What the programs answer. */
function answer(kind: number, cgroupId = 0n): void {
  mock.method(nativeModule(), 'callerOf', (): CallerAnswer => ({ kind, cgroupId }));
}

describe('the caller of an accepted socket', () => {
  it('is attested by the record of its connect', () => {
    answer(3, 7n);
    assert.deepEqual(attestSocket(9), { kind: 'attested', cgroupId: 7n, isDirect: false });
    answer(4, 8n);
    assert.deepEqual(attestSocket(9), { kind: 'attested', cgroupId: 8n, isDirect: true });
  });

  it('is refused without one, and told to retry where it may have had no chance of one', () => {
    answer(0);
    assert.deepEqual(attestSocket(9), { kind: 'unattested' });
    answer(1);
    const noRoom = attestSocket(9);
    assert.match((noRoom.kind === 'unattested' && noRoom.retryWhy) || '', /no room for a record/);
  });

  it('is unavailable where two sockets of the node have one address and port', () => {
    answer(2);
    const shared = 'another socket of this node has the same address and port';
    assert.deepEqual(attestSocket(9), { kind: 'unavailable', why: shared });
  });

  it('is unavailable without an answer, for a socket that is gone, and without a native module', () => {
    mock.method(nativeModule(), 'callerOf', () => undefined);
    assert.deepEqual(attestSocket(9), { kind: 'unavailable', why: unanswered });
    mock.method(nativeModule(), 'callerOf', () => {
      throw nativeFailure('EBADF', 'ask socket');
    });
    assert.deepEqual(attestSocket(-1), { kind: 'unavailable', why: unanswered });
  });

  it('is known to be unavailable before anybody calls', () => {
    for (const [isAnswered, expected] of [
      [() => true, undefined],
      [() => false, unanswered],
      [
        () => {
          throw nativeFailure('EMFILE', 'open socket');
        },
        unanswered,
      ],
    ] as const) {
      mock.method(nativeModule(), 'isAnswered', isAnswered);
      assert.equal(whyUnanswered(), expected);
    }
  });
});
