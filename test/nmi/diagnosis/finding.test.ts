import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createFinding,
  reaches,
  renderFindings,
  sortFindings,
} from '../../../src/nmi/diagnosis/finding.ts';

const of = (
  code: 'binding_unused' | 'network_policy' | 'binding_missing' | 'old_mic',
  object = 'Pod a',
) => createFinding(code, { object, text: 'It is so.' });

describe('a finding', () => {
  it('has the severity and the fix of its page; a refusal is an error', () => {
    assert.equal(of('binding_unused').severity, 'info');
    assert.equal(of('binding_missing').severity, 'error');
    assert.equal(
      createFinding('network_policy', { object: 'x', text: 'y', severity: 'info' }).severity,
      'info',
    );
    assert.match(of('binding_missing').fix, /identity assign/);
    assert.equal(
      createFinding('network_policy', { object: 'x', text: 'y', fix: 'Do it.' }).fix,
      'Do it.',
    );
  });

  it('comes before those that are less severe', () => {
    const sorted = sortFindings([
      of('binding_unused'),
      of('old_mic'),
      of('network_policy', 'Pod b'),
      of('network_policy'),
    ]);
    assert.deepEqual(
      sorted.map(({ severity, object }) => `${severity} ${object}`),
      ['error Pod a', 'error Pod b', 'warning Pod a', 'info Pod a'],
    );
    const equal = [of('old_mic'), of('old_mic')];
    for (const [at, each] of sortFindings(equal).entries()) assert.equal(each, equal[at]);
  });

  it('is compared to a threshold', () => {
    assert.equal(reaches([of('old_mic')], 'warning'), true);
    assert.equal(reaches([of('old_mic')], 'error'), false);
    assert.equal(reaches([], 'info'), false);
  });

  it('is printed with its fix and its page', () => {
    assert.deepEqual(
      renderFindings([
        createFinding('network_policy', {
          object: 'Pod a',
          text: 'No.',
          fix: 'Fix.',
          details: ['Near.'],
        }),
      ]),
      [
        'error   Pod a: network_policy',
        '        No.',
        '        - Near.',
        '        fix: Fix.',
        '        see: kubectl nmi reasons network_policy, or docs/kubectl.md#network_policy',
      ],
    );
  });
});
