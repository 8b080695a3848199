import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../../src/nmi/base/logger.ts';
import { watchRoom } from '../../../src/nmi/kernel/room-shortage.ts';
import type { ProgramCounters } from '../../../src/redirect/ebpf/programs.ts';

const zero: ProgramCounters = {
  redirected: 0n,
  redirectedMapped: 0n,
  exempt: 0n,
  filed: 0n,
  forgotten: 0n,
  refused: 0n,
  unfiled: 0n,
  unfiledAtNs: 0n,
};

function open(first: ProgramCounters | undefined) {
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  let counters = first;
  const look = watchRoom(() => counters, log);
  return {
    /** What is logged when the counters are so. */
    at: (next: ProgramCounters | undefined): readonly unknown[] => {
      counters = next;
      look();
      return lines.splice(0).map((line) => {
        const { refusedConnects, unrecordedConnections } = JSON.parse(line) as Record<
          string,
          number
        >;
        return [refusedConnects, unrecordedConnections];
      });
    },
  };
}

describe('room for callers', () => {
  it('is logged as short once for each look at which more were refused', () => {
    const { at } = open({ ...zero, refused: 7n });
    assert.deepEqual(at({ ...zero, refused: 7n }), [], 'from before the start');
    assert.deepEqual(at({ ...zero, refused: 5_007n }), [[5_000, 0]]);
    assert.deepEqual(at({ ...zero, refused: 5_007n }), []);
    assert.deepEqual(at({ ...zero, refused: 5_008n, unfiled: 2n }), [[1, 2]]);
  });

  it('is no matter while there are no counters, and when they begin anew', () => {
    const { at } = open(undefined);
    assert.deepEqual(at(undefined), []);
    assert.deepEqual(at({ ...zero, unfiled: 3n }), [[0, 3]]);
    assert.deepEqual(at(zero), []);
    assert.deepEqual(at({ ...zero, unfiled: 1n }), [[0, 1]]);
  });
});
