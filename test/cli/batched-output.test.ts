import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { createBatchedOutput } from '../../src/cli/batched-output.ts';

describe('batched output', () => {
  it('writes the output of one turn of the event loop at its end, in order, once', async () => {
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    output.write('a\n');
    output.write('b\n');
    assert.deepEqual(writes, []);
    await turn();
    assert.deepEqual(writes, ['a\nb\n']);
  });

  it('combines the output of later turns after a pause, and writes at once after a longer one', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let nowMs = 1_000;
    t.mock.method(performance, 'now', () => nowMs);
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    output.write('a\n');
    await turn();
    output.write('b\n');
    await turn();
    output.write('c\n');
    t.mock.timers.tick(4);
    assert.deepEqual(writes, ['a\n']);
    nowMs += 5;
    t.mock.timers.tick(1);
    assert.deepEqual(writes, ['a\n', 'b\nc\n']);
    nowMs += 5;
    output.write('d\n');
    await turn();
    assert.deepEqual(writes, ['a\n', 'b\nc\n', 'd\n']);
  });

  it('buffers a bounded amount', () => {
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    for (let count = 0; count < 100; count++) output.write(`${'x'.repeat(1023)}\n`);
    assert.deepEqual(
      writes.map((text) => text.length),
      [65_536],
    );
  });

  it('is flushed at once for an exit, and then has nothing left', async () => {
    const writes: string[] = [];
    const output = createBatchedOutput((text) => writes.push(text));
    output.write('last args\n');
    output.flush();
    output.flush();
    await turn();
    assert.deepEqual(writes, ['last args\n']);
  });
});
