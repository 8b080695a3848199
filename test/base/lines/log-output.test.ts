import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LogOutput } from '../../../src/base/lines/log-output.ts';

const mebibyte = 1024 * 1024;

function open(hasQueue = true) {
  const written: string[] = [];
  const state = { waitingBytes: 0 };
  const output: LogOutput = new LogOutput({
    write: (line) => written.push(line),
    waitingBytes: hasQueue ? () => state.waitingBytes : undefined,
    onDropped: (count) => output.write(`${count} dropped`),
  });
  return { output, written, state };
}

describe('the output of log lines', () => {
  it('drops lines while more than 2 MiB wait, and reports their number before the next one', () => {
    const { output, written, state } = open();
    state.waitingBytes = 2 * mebibyte;
    assert.ok(output.write('a'));
    state.waitingBytes += 1;
    assert.deepEqual([output.write('b'), output.write('c')], [false, false]);
    state.waitingBytes = mebibyte + 1;
    assert.ok(!output.write('d'), 'half of it is still there');
    state.waitingBytes = mebibyte;
    assert.ok(output.write('e'));
    assert.ok(output.write('f'));
    assert.deepEqual(written, ['a', '3 dropped', 'e', 'f']);
  });

  it('writes all lines where nothing ever waits', () => {
    const { output, written } = open(false);
    assert.ok(output.write('a'));
    assert.deepEqual(written, ['a']);
  });
});
