import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bugReporter } from '../../../src/base/lines/bug-reporter.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('the report of a bug', () => {
  it('has the stack, in twenty lines of a minute, and then the number of the rest', () => {
    const lines: string[] = [];
    const clock = new HandClock();
    const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
    const report = bugReporter(log, clock, 'request failed');
    const read = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
    report('no error');
    for (let count = 0; count < 30; count++) report(new RangeError('bug'));
    const [first, second, ...others] = read();
    assert.deepEqual([first?.['level'], first?.['err']], ['error', 'unknown']);
    assert.match(String(second?.['err']), /^RangeError: bug\n +at /);
    assert.equal(second?.['msg'], 'request failed');
    assert.equal(others.length, 18);
    clock.advance(60_000);
    assert.deepEqual(
      read().map(({ count, msg }) => [count, msg]),
      [[11, 'request failed, further ones']],
    );
  });
});
