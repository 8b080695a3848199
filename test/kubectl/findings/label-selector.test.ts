import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { matchesSelector } from '../../../src/kubectl/findings/label-selector.ts';

const labels = new Map([
  ['app', 'web'],
  ['tier', 'front'],
]);
const expression = (operator: string, values: readonly string[] = [], key = 'app') => ({
  matchExpressions: [{ key, operator, values }],
});

describe('a label selector', () => {
  const cases: readonly (readonly [object | undefined, boolean])[] = [
    [undefined, false],
    [{}, true],
    [{ matchLabels: { app: 'web' } }, true],
    [{ matchLabels: { app: 'Web' } }, false],
    [{ matchLabels: { app: 'web', x: 'y' } }, false],
    [expression('In', ['a', 'web']), true],
    [expression('In', ['a']), false],
    [expression('In', ['a'], 'x'), false],
    [expression('NotIn', ['a']), true],
    [expression('NotIn', ['web']), false],
    [expression('NotIn', ['web'], 'x'), true],
    [expression('Exists'), true],
    [expression('Exists', [], 'x'), false],
    [expression('DoesNotExist'), false],
    [expression('DoesNotExist', [], 'x'), true],
    [expression('Near'), false],
  ];
  for (const [selector, matches] of cases) {
    it(`${matches ? 'matches' : 'does not match'} with ${JSON.stringify(selector) ?? 'nothing'}`, () => {
      assert.equal(
        matchesSelector(selector as Record<string, unknown> | undefined, labels),
        matches,
      );
    });
  }
});
