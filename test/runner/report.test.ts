import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import { Report } from './report.ts';

function openOutput() {
  let text = '';
  const output = new Writable({
    // Slower than the tests.
    highWaterMark: 1,
    write(chunk, _encoding, done) {
      text += String(chunk);
      setImmediate(done);
    },
  });
  return { output, text: () => text };
}

const counts = { tests: 1, passed: 1, skipped: 0, cancelled: 0, suites: 0, todo: 0, topLevel: 1 };

function linesOf(file: string, success = true): readonly TestEvent[] {
  const lines = Array.from({ length: 100 }, (_, at): TestEvent => ({
    type: 'test:stdout',
    data: { file, message: `says ${file} ${at}\n` },
  }));
  const end = { success, counts, duration_ms: 1, file: undefined };
  return [...lines, { type: 'test:summary', data: end }];
}

describe('the report of many files', () => {
  it('has each as a whole, even if two end at the same time', async () => {
    const { output, text } = openOutput();
    const report = new Report(output);
    await Promise.all(['a', 'b', 'c'].map((file) => report.add(file, linesOf(file))));
    assert.equal(await report.end(), true);
    const order = [...text().matchAll(/^says (\w)/gm)].map(([, file]) => file).join('');
    assert.equal(order, ['a', 'b', 'c'].map((file) => file.repeat(100)).join(''));
    assert.match(text(), /ℹ tests 3\n/);
  });

  it('has failed if one file has, in whatever way', async () => {
    const [, ...noSummary] = linesOf('a').toReversed();
    for (const events of [linesOf('a', false), noSummary, []]) {
      const { output, text } = openOutput();
      const report = new Report(output);
      assert.equal(await report.add('good', linesOf('good')), true);
      assert.equal(await report.add('a', events), false);
      assert.equal(await report.add('good', linesOf('good')), true);
      assert.equal(await report.end(), false);
      if (events.length !== 101) assert.match(text(), /FAILED: a: .*without a summary/);
    }
    const { output, text } = openOutput();
    const report = new Report(output);
    await report.fail('the programs for x cannot be built');
    assert.equal(await report.end(), false);
    assert.match(text(), /FAILED: the programs for x cannot be built\n.*ℹ fail 1\n/s);
  });
});
