/** Every fault of the lab has an alert with a runbook. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { scenarios } from '../../../../lab/scenarios/all.ts';
import { refusals } from '../../../../src/nmi/base/answers.ts';
import { faultAlerts, withoutAlert } from './fault-alerts.ts';
import { readAlerts, selectorsOf } from './queries.ts';

const alerts = new Map(readAlerts().map((rule) => [rule.alert, rule]));

describe('the faults of the lab', () => {
  it('each have an alert, and all other scenarios are listed as none', () => {
    const listed = [...faultAlerts.map(({ scenario }) => scenario), ...withoutAlert];
    assert.deepEqual(listed.toSorted(), scenarios.map(({ name }) => name).toSorted());
  });

  it('have alerts that exist, with a runbook', () => {
    for (const { scenario, alerts: named } of faultAlerts) {
      assert.ok(named.length > 0, scenario);
      for (const alert of named) {
        assert.match(alerts.get(alert)?.annotations.runbook_url ?? '', /^docs\/\w+\.md#/, scenario);
      }
    }
  });

  it('are counted by the alert with the listed reason', () => {
    for (const {
      scenario,
      alerts: [alert = ''],
      shown,
    } of faultAlerts) {
      const words = shown.split(/[ ,]+/).filter((word) => Object.hasOwn(refusals, word));
      const selectors = selectorsOf(alerts.get(alert)?.expr ?? '');
      const counted = selectors.flatMap(({ labels }) => [
        ...(labels.get('reason') ?? []),
        ...(labels.get('outcome') ?? []),
      ]);
      for (const word of words) assert.ok(counted.includes(word), `${scenario}: ${word}`);
    }
  });
});
