import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { exitCodes, untilStopped, type Io } from '../../src/cli/io.ts';

describe('the exit codes of the agent', () => {
  it('are 0, 1, and those of sysexits', () => {
    assert.deepEqual(Object.values(exitCodes), [0, 1, 2, 69, 70, 78]);
  });
});

describe('a signal to stop', () => {
  it('is waited for, and not lost if it arrives earlier', async () => {
    const stop = new AbortController();
    let isStopped = false;
    const stopped = untilStopped({ stop: stop.signal } as Io).then(() => (isStopped = true));
    await new Promise(setImmediate);
    assert.ok(!isStopped);
    stop.abort();
    await stopped;
    await untilStopped({ stop: stop.signal } as Io);
  });
});
