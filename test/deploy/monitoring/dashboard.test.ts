/** The dashboard: the names in its queries exist, and Grafana can lay it out. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unknownNames } from './known-names.ts';
import { readAlerts, readDashboard, selectorsOf } from './queries.ts';

const { panels, templating } = readDashboard();
const queries = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));

describe('the dashboard', () => {
  it('names metrics, labels and reasons that exist, in legends too', () => {
    assert.ok(panels.length >= 12);
    for (const { title, targets } of panels) {
      for (const { expr, legendFormat } of targets) {
        assert.deepEqual(unknownNames(expr), [], title);
        const grouping = /\bby \(([^)]*)\)/.exec(expr)?.[1]?.split(', ') ?? [];
        for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
          assert.ok(grouping.includes(label), `${title}: ${legendFormat}`);
        }
      }
    }
  });

  it('shows the chosen agents in every query, by variables that it defines', () => {
    const names = templating.list.map(({ name }) => name);
    assert.deepEqual(names, ['datasource', 'instance']);
    const [, instance] = templating.list;
    assert.deepEqual(
      selectorsOf(instance?.query ?? '').flatMap(({ metric }) => unknownNames(metric)),
      [],
    );
    for (const query of queries) {
      for (const { metric, labels } of selectorsOf(query)) {
        assert.deepEqual(labels.get('instance'), ['$instance'], `${metric} in ${query}`);
      }
    }
  });

  it('counts the same answers as failures as the alert does', () => {
    const reasonsOf = (query: string) =>
      selectorsOf(query).flatMap((each) => each.labels.get('reason') ?? []);
    const alert = readAlerts().find((rule) => rule.alert === 'NmiRequestsFail');
    const panel = panels.find(({ title }) => title === 'Answers 429 and 5xx');
    const expected = reasonsOf(alert?.expr ?? '');
    assert.ok(expected.length > 0);
    assert.deepEqual(reasonsOf(panel?.targets[0]?.expr ?? ''), expected);
  });

  it('has panels that neither overlap nor leave the grid', () => {
    const cells = new Set<string>();
    for (const { title, gridPos } of panels) {
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!cells.has(`${x} ${y}`), title);
          cells.add(`${x} ${y}`);
        }
      }
    }
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    assert.equal(new Set(panels.map(({ title }) => title)).size, panels.length);
  });
});
