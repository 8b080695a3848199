import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseOptions } from '../../bench/core/options.ts';
import {
  median,
  ratiosOf,
  nearestRank,
  slopeErrorOf,
  slopeOf,
  spreadOf,
} from '../../bench/core/statistics.ts';

describe('the summary of several rounds', () => {
  it('is their median and their spread', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
    assert.deepEqual(spreadOf([1, 1.1, 0.9]), { median: 1, min: 0.9, max: 1.1, isNoisy: false });
    assert.ok(spreadOf([1, 1.3, 0.8]).isNoisy);
    assert.ok(!spreadOf([7]).isNoisy);
  });

  it('may be a ratio round by round', () => {
    assert.deepEqual(ratiosOf([1, 4, 9], [2, 2]), [0.5, 2]);
  });

  it('leaves out rounds that were not measured', () => {
    assert.deepEqual(ratiosOf([1, NaN, 6, 4], [2, 2, NaN, 2]), [0.5, 2]);
    assert.equal(median([3, NaN, 1]), 2);
    assert.deepEqual(spreadOf([1, NaN, 1]), { median: 1, min: 1, max: 1, isNoisy: false });
    assert.ok(Number.isNaN(median([NaN])));
  });

  it('may be a slope by least squares', () => {
    assert.equal(
      slopeOf([
        [0, 1],
        [1, 3],
        [2, 5],
      ]),
      2,
    );
    assert.ok(Number.isNaN(slopeOf([[1, 1]])));
  });
});

describe('a percentile by nearest rank', () => {
  it('is one of the numbers, negative ones too', () => {
    const numbers = Array.from({ length: 200 }, (_, index) => 99 - index);
    assert.equal(nearestRank(numbers, 0.99), 97);
    assert.equal(nearestRank([-3, -1, -2], 0.99), -1);
    assert.ok(Number.isNaN(nearestRank([], 0.5)));
  });
});

describe('the error of a slope', () => {
  it('is zero on a line, and the textbook value beside it', () => {
    assert.equal(slopeErrorOf([[0, 0], [1, 2], [2, 4]]), 0); // prettier-ignore
    // Residuals 0.1, -0.2, 0.1: the sum of squares 0.06 over 1 and over 2.
    const error = slopeErrorOf([[0, 0.1], [1, 0.8], [2, 2.1]]); // prettier-ignore
    assert.ok(Math.abs(error - Math.sqrt(0.06 / 2)) < 1e-9, `${error}`);
    assert.ok(Number.isNaN(slopeErrorOf([[0, 0], [1, 1]]))); // prettier-ignore
  });
});

describe('the command line', () => {
  it('publishes a complete run, and neither a partial nor a quick one', () => {
    assert.ok(parseOptions([]).isPublished);
    assert.ok(!parseOptions(['hit']).isPublished);
    assert.ok(!parseOptions(['--quick']).isPublished);
    assert.ok(parseOptions(['hit', '--publish']).isPublished);
    assert.ok(!parseOptions([]).isBeside && parseOptions(['--beside']).isBeside);
  });

  it('passes arguments after -- to the agent', () => {
    const { only, agentFlags } = parseOptions(['hit', '--', '--log-level=warn', 'hit']);
    assert.deepEqual(only, ['hit']);
    assert.deepEqual(agentFlags, ['--log-level=warn', 'hit']);
  });

  it('accepts a rival as a name and a command', () => {
    const { against } = parseOptions(['--against', 'old = /bin/nmi --v=1']);
    assert.deepEqual(against, { name: 'old', command: '/bin/nmi --v=1' });
    assert.throws(() => parseOptions(['--against', 'old']), /NAME=COMMAND/);
    assert.throws(() => parseOptions(['--rounds', '0']), /whole number/);
  });
});
