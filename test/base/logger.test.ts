import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger } from '../../src/base/logger.ts';

describe('the logger', () => {
  it('writes prepared lines byte for byte like others', () => {
    for (const format of ['json', 'text'] as const) {
      for (const level of ['info', 'warn'] as const) {
        const lines: string[] = [];
        const log = createLogger({ format, level, write: (line) => lines.push(line) });
        const fields = { pod: 'a"b', gone: undefined, status: 200, nested: { x: [1] } };
        const child = log.child({ component: 'c' });
        child.prepare(fields, 'token request')(1.25, {
          requestId: 'id',
          traceId: undefined,
        });
        child.child(fields).info({ durationMs: 1.25, requestId: 'id' }, 'token request');
        const [prepared, written] = lines.map((line) => line.replace(/\d\d\.\d{3,6}/, ''));
        assert.equal(lines.length, level === 'info' ? 2 : 0);
        assert.equal(prepared, written);
      }
    }
  });

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
      log[level]({ level }, 'message');
      const { time, ...rest } = JSON.parse(lines.pop() ?? '{}') as Record<string, unknown>;
      assert.deepEqual(rest, { level, msg: 'message' });
      const atMs = Date.parse(String(time));
      assert.ok(atMs >= startMs && atMs <= Date.now(), `written at ${String(time)}`);
    }
  });
});
