import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createDropReport } from '../../../../src/nmi/telemetry/audit/drop-report.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { HandClock } from '../../../support/hand-clock.ts';

describe('the log of lost audit records', () => {
  it('has the first loss at once, and the number of further losses once a minute', () => {
    const lines: string[] = [];
    const clock = new HandClock();
    const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
    const report = createDropReport({ path: '/audit.log', clock, log });
    const read = () =>
      lines.splice(0).map((line) => {
        const { level, path, code, count, msg } = JSON.parse(line) as Record<string, unknown>;
        return [level, path, code, count, msg].join(' ');
      });
    for (let count = 0; count < 100; count++) report(2, 'ENOSPC');
    assert.deepEqual(read(), ['error /audit.log ENOSPC 2 audit records dropped']);
    clock.advance(60_000);
    assert.deepEqual(read(), ['error /audit.log ENOSPC 198 audit records dropped']);
    clock.advance(60_000);
    assert.deepEqual(read(), []);
    report(1, 'QUEUE_FULL');
    assert.deepEqual(read(), ['error /audit.log QUEUE_FULL 1 audit records dropped']);
  });
});
