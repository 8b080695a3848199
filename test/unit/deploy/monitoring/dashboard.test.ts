/** The dashboard: the names in its queries exist, and Grafana can lay it out. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { unknownNames } from './known-names.ts';
import { isRow, readAlerts, readDashboard, readPanels, selectorsOf } from './queries.ts';

const { panels: entries, templating } = readDashboard();
const panels = readPanels();
const rows = entries.filter(isRow);
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
    for (const { title, gridPos } of entries) {
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!cells.has(`${x} ${y}`), title);
          cells.add(`${x} ${y}`);
        }
      }
    }
    assert.equal(new Set(entries.map(({ id }) => id)).size, entries.length);
    assert.equal(new Set(entries.map(({ title }) => title)).size, entries.length);
  });

  it('groups its panels under open rows', () => {
    const titles = [
      ...['Overview', 'Requests and refusals', 'Tokens and upstreams'],
      ...['Redirect and connections', 'Watches and process'],
    ];
    assert.deepEqual(
      rows.map(({ title }) => title),
      titles,
    );
    for (const { title, collapsed, gridPos } of rows) {
      assert.deepEqual([collapsed, gridPos.x, gridPos.w, gridPos.h], [false, 0, 24, 1], title);
    }
    assert.equal(entries[0], rows[0]);
    // Grafana shows a panel under the row above it, wherever it is in the file.
    const order = entries.map(({ gridPos }) => gridPos.y);
    assert.deepEqual(
      order,
      order.toSorted((one, other) => one - other),
    );
  });

  it('compares no value twice', () => {
    for (const query of queries) assert.doesNotMatch(query, /[<>=] ?\d+ [<>=]/);
  });
});
