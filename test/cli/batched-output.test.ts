import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { createBatchedOutput } from '../../src/cli/batched-output.ts';

describe('batched output', () => {
  it('writes what one turn brought at its end, in order, once', async () => {
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    output.write('a\n');
    output.write('b\n');
    assert.deepEqual(writes, []);
    await turn();
    assert.deepEqual(writes, ['a\nb\n']);
    output.write('c\n');
    await turn();
    assert.deepEqual(writes, ['a\nb\n', 'c\n']);
  });

  it('is flushed at once for an exit, and then has nothing left', async () => {
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    output.write('last words\n');
    output.flush();
    output.flush();
    await turn();
    assert.deepEqual(writes, ['last words\n']);
  });
});
