import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../src/base/logger.ts';

describe('the logger', () => {
  it('writes lines in either format, and none below its level', () => {
    for (const format of ['json', 'text'] as const) {
      const lines: string[] = [];
      const log = createLogger({ format, level: 'info', write: (line) => lines.push(line) });
      log.debug({}, 'unseen');
      log.child({ component: 'c' }).warn({ x: 1 }, 'seen');
      assert.equal(lines.length, 1);
      assert.ok(lines[0]?.includes('seen') && lines[0].endsWith('\n'));
      assert.equal(lines[0]?.startsWith('W'), format === 'text');
    }
  });

  it('writes level and time into every line', () => {
    const lines: string[] = [];
    const log = createLogger({ format: 'json', level: 'trace', write: (line) => lines.push(line) });
    for (const level of ['debug', 'info', 'warn', 'error'] as const) {
      const beforeMs = Date.now();
      while (Date.now() === beforeMs);
      const startMs = Date.now();
      log[level]({ of: level }, 'message');
      const { time, ...rest } = JSON.parse(lines.pop() ?? '{}') as Record<string, unknown>;
      assert.deepEqual(rest, { level, of: level, msg: 'message' });
      const atMs = Date.parse(String(time));
      assert.ok(atMs >= startMs && atMs <= Date.now(), `written at ${String(time)}`);
    }
  });
});
