import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../../src/base/logger.ts';
import { watchRoom } from '../../../src/nmi/kernel/room-shortage.ts';
import type { ProgramCounters } from '../../../src/redirect/ebpf/programs.ts';

const zero: ProgramCounters = {
  redirected: 0n,
  redirectedMapped: 0n,
  exempt: 0n,
  recorded: 0n,
  deleted: 0n,
  refused: 0n,
  unrecorded: 0n,
  unrecordedAtNs: 0n,
  direct: 0n,
};

function open(first: ProgramCounters | undefined) {
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  let counters = first;
  const look = watchRoom(() => counters, log);
  return {
    /** The log lines for these counters. */
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

describe('capacity for callers', () => {
  it('is logged as short once for each check at which the refusals have grown', () => {
    const { at } = open({ ...zero, refused: 7n });
    assert.deepEqual(at({ ...zero, refused: 7n }), [], 'from before the start');
    assert.deepEqual(at({ ...zero, refused: 5_007n }), [[5_000, 0]]);
    assert.deepEqual(at({ ...zero, refused: 5_007n }), []);
    assert.deepEqual(at({ ...zero, refused: 5_008n, unrecorded: 2n }), [[1, 2]]);
  });

  it('is not logged without counters, nor when they are reset', () => {
    const { at } = open(undefined);
    assert.deepEqual(at(undefined), []);
    assert.deepEqual(at({ ...zero, unrecorded: 3n }), [[0, 3]]);
    assert.deepEqual(at(zero), []);
    assert.deepEqual(at({ ...zero, unrecorded: 1n }), [[0, 1]]);
  });
});
