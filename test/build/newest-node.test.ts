import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { newestRelease } from '../../scripts/newest-node.ts';

describe('the check for a newer Node', () => {
  it('finds the newest release of the same major version, by number', () => {
    const published = ['26.9.1', '26.10.0', '26.10.2', '26.10.11', '27.0.0', '26.11.0-rc.1'];
    assert.equal(newestRelease('26.10.0', [published, published]), '26.10.11');
    assert.equal(newestRelease('26.9.1', [[...published, '26.11.0']]), '26.11.0');
  });

  it('accepts the newest, and one that a mirror does not have yet', () => {
    assert.equal(newestRelease('26.10.11', [['26.10.0', '26.10.11']]), '26.10.11');
    assert.equal(newestRelease('26.10.11', [['26.10.0', '27.1.0']]), '26.10.11');
  });

  it('proposes no release that is missing for one processor', () => {
    assert.equal(
      newestRelease('26.10.0', [
        ['26.10.0', '26.12.0'],
        ['26.10.0', '26.12.1'],
      ]),
      '26.10.0',
    );
  });
});
