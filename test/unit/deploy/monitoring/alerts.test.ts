/**
 * The alert rules: the names in them exist, each is documented, and promtool confirms each test.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse, stringify } from 'yaml';
import { refusals } from '../../../../src/nmi/base/answers.ts';
import { findMissingTool } from '../../../support/debian-system.ts';
import { alertsPath, readAlerts, readRuleFile, selectorsOf, type AlertRule } from './queries.ts';
import { unknownNames } from './known-names.ts';

const root = join(import.meta.dirname, '../../../..');
const alerts = readAlerts();
const reasons = Object.keys(refusals);

/** The values of `label` that the rule's query matches. */
function matchedBy(alert: string, label: string): readonly string[] {
  const rule = alerts.find((each) => each.alert === alert);
  assert.ok(rule !== undefined, alert);
  const matched = selectorsOf(rule.expr).flatMap(({ labels }) => labels.get(label) ?? []);
  return [...new Set(matched)];
}

/**
 * Refusals that any client may cause, or any pod without an identity: probes, and malformed
 * requests.
 */
const unalerted = [
  ...['metadata_header_missing', 'path_invalid', 'request_malformed', 'parameter_missing'],
  ...['parameter_duplicate', 'parameter_invalid', 'not_found', 'method_not_allowed'],
  ...['request_timeout', 'headers_too_large', 'metadata_blocked', 'host_only', 'no_binding_label'],
];

describe('the alert rules', () => {
  it('name metrics, labels and reasons that exist', () => {
    assert.ok(alerts.length >= 20);
    for (const { alert, expr } of alerts) assert.deepEqual(unknownNames(expr), [], alert);
    assert.deepEqual(unknownNames('sum by (cause) (nmi_nothing + nmi_ready{state="a"})'), [
      'nmi_nothing',
      'nmi_ready{state}',
      'cause',
    ]);
    assert.deepEqual(unknownNames('nmi_requests_total{reason=~"ok|lost"}'), ['reason lost']);
  });

  it('count every answer of 429 and 5xx as a failure, except those that one pod can cause at will', () => {
    const failing = Object.entries(refusals).filter(
      ([, { status }]) => status === 429 || status >= 500,
    );
    const expected = failing
      .map(([reason]) => reason)
      .filter((reason) => reason !== 'caller_throttled');
    assert.deepEqual(matchedBy('NmiRequestsFail', 'reason').toSorted(), expected.toSorted());
  });

  it('leave out only the reasons of probes and of malformed requests', () => {
    const watched = [
      ...alerts.flatMap(({ alert }) => matchedBy(alert, 'reason')),
      ...alerts.flatMap(({ alert }) => matchedBy(alert, 'outcome')),
    ];
    const missing = reasons.filter((reason) => !watched.includes(reason));
    assert.deepEqual(missing.toSorted(), unalerted.toSorted());
  });

  it('never page for what one pod can cause at will', () => {
    const severities = new Map(alerts.map(({ alert, labels }) => [alert, labels.severity]));
    for (const alert of ['NmiPodsRefused', 'NmiObjectsSkipped']) {
      assert.equal(severities.get(alert), 'info');
    }
    assert.deepEqual(new Set(severities.values()), new Set(['critical', 'warning', 'info']));
  });

  it('each have a row in docs/alerts.md with the same severity, and a runbook link to an existing heading', () => {
    const rows = readFileSync(join(root, 'docs/alerts.md'), 'utf8').matchAll(
      /^\| `(Nmi\w+)` \| (\w+) \|/gm,
    );
    assert.deepEqual(
      [...rows].map(([, alert = '', severity = '']) => `${alert} ${severity}`).toSorted(),
      alerts.map(({ alert, labels }) => `${alert} ${labels.severity}`).toSorted(),
    );
    for (const { alert, annotations } of alerts) {
      const [path = '', anchor = ''] = annotations.runbook_url.split('#');
      const label = /^\{\{ \$labels\.(\w+) \}\}$/.exec(anchor)?.[1];
      const anchors = label === undefined ? [anchor] : matchedBy(alert, label);
      assert.ok(anchors.length > 0, alert);
      const headings = readFileSync(join(root, path), 'utf8').matchAll(/^#+ (.*)$/gm);
      const known = new Set(
        [...headings].map(([, heading = '']) => heading.toLowerCase().replaceAll(' ', '-')),
      );
      for (const each of anchors) assert.ok(known.has(each), `${alert}: ${path}#${each}`);
    }
  });
});

const missing = findMissingTool('promtool');
const skip =
  missing === undefined ? false : `${missing} is not installed (apt-get install prometheus)`;

/** A case of `alert-cases.yaml`: series with their values; by alert and time, what fires: labels and summary. */
interface AlertCase {
  readonly name: string;
  readonly interval?: string;
  readonly series: Readonly<Record<string, string>>;
  readonly alerts: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** As promtool reads it: with the severity and the runbook that the rule has. */
function renderCases(ruleFile: string): string {
  const text = readFileSync(join(import.meta.dirname, 'alert-cases.yaml'), 'utf8');
  // A number may be hexadecimal otherwise: 0x30 is thirty times 0.
  const cases = parse(text, { schema: 'failsafe' }) as readonly AlertCase[];
  const tests = cases.map(({ name, interval = '1m', series, alerts: expected }) => ({
    name,
    interval,
    input_series: Object.entries(series).map(([each, values]) => ({ series: each, values })),
    alert_rule_test: Object.entries(expected).map(([when, fires]) => {
      const [alertname = '', eval_time] = when.split(' ');
      return { alertname, eval_time, exp_alerts: alertsOf(alertname, fires) };
    }),
  }));
  return stringify({ rule_files: [ruleFile], evaluation_interval: '1m', tests });
}

function alertsOf(alert: string, fires: Readonly<Record<string, string>>): readonly object[] {
  const rule = alerts.find((each) => each.alert === alert);
  assert.ok(rule !== undefined, alert);
  const link = rule.annotations.runbook_url;
  return Object.entries(fires).map(([words, summary]) => {
    const labels: Readonly<Record<string, string>> = Object.fromEntries(
      words
        .split(' ')
        .flatMap((word) => (word === '' ? [] : [word.split('=') as [string, string]])),
    );
    const runbook_url = link.replace(
      /\{\{ \$labels\.(\w+) \}\}/,
      (_, label: string) => labels[label] ?? '',
    );
    return {
      exp_labels: { severity: rule.labels.severity, ...labels },
      exp_annotations: { summary, runbook_url },
    };
  });
}

describe('the alert rules by promtool', { skip }, () => {
  let folder = '';
  before(() => (folder = mkdtempSync(join(tmpdir(), 'nmi-alerts-'))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  function promtool(...words: readonly string[]) {
    const { status, stdout, stderr } = spawnSync('promtool', words, { encoding: 'utf8' });
    return { ok: status === 0, output: stdout + stderr };
  }

  function testRules(ruleFile: string) {
    const file = join(folder, 'cases.yaml');
    writeFileSync(file, renderCases(ruleFile));
    return promtool('test', 'rules', file);
  }

  it('are valid, fire and do not fire as tested', () => {
    for (const { ok, output } of [
      promtool('check', 'rules', '--lint=all', '--lint-fatal', alertsPath),
      testRules(alertsPath),
    ]) {
      assert.ok(ok, output);
    }
  });

  const faults = {
    'never fire': (rule: AlertRule) => ({ ...rule, expr: 'vector(1) > 2' }),
    'do not wait': (rule: AlertRule) => ({ ...rule, for: '0m' }),
  };
  for (const [fault, change] of Object.entries(faults)) {
    it(`fail the test of each alert when they ${fault}`, () => {
      const groups = readRuleFile().groups.map((group) => ({
        ...group,
        rules: group.rules.map(change),
      }));
      writeFileSync(join(folder, 'alerts.yaml'), stringify({ groups }));
      const { output } = testRules('alerts.yaml');
      const touched = fault === 'do not wait' ? alerts.filter((rule) => rule.for) : alerts;
      const unnoticed = touched.filter(({ alert }) => !output.includes(`alertname: ${alert},`));
      assert.deepEqual(
        unnoticed.map(({ alert }) => alert),
        [],
      );
    });
  }
});
