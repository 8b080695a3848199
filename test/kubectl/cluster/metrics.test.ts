import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseMetrics } from '../../../src/kubectl/cluster/metrics.ts';

describe('a metrics page', () => {
  it('is parsed into samples with labels', () => {
    const samples = parseMetrics(
      '# HELP a b\na{x="1",y="q\\"}"} 3\nb 0.5\nc{} NaN 17\nnot a sample at all\n\n',
    );
    assert.deepEqual(
      samples.map(({ name, labels, value }) => [name, Object.fromEntries(labels), value]),
      [
        ['a', { x: '1', y: 'q\\"}' }, 3],
        ['b', {}, 0.5],
        ['c', {}, Number.NaN],
      ],
    );
  });
});
