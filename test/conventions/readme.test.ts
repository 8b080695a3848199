import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { renderReadme } from '../../scripts/readme-tables.ts';
import { scenarios } from '../../lab/scenarios/all.ts';
import { newMetrics, oldMetrics, type MetricRow } from '../../src/nmi/telemetry/metric-table.ts';

const root = join(import.meta.dirname, '..', '..');
const readme = await readFile(join(root, 'README.md'), 'utf8');

describe('the README', () => {
  it('has fresh generated tables (npm run docs writes them)', () => {
    assert.equal(renderReadme(readme), readme);
  });

  it('is found stale when a row changes', () => {
    const stale = readme.replace('`nmi_build_info`', '`nmi_other_info`');
    assert.notEqual(stale, readme);
    assert.notEqual(renderReadme(stale), stale);
  });

  it('shows output of the lab whose scenarios exist under the same titles', () => {
    const shown = [...readme.matchAll(/^▶ ([a-z-]+): (.+)$/gm)];
    assert.ok(shown.length >= 5);
    for (const [, name = '', title = ''] of shown) {
      const scenario = scenarios.find((each) => each.name === name);
      assert.ok(scenario?.title.startsWith(title.replace(/\.\.\.$/, '')), name);
    }
  });

  it('links to files that exist', () => {
    const links = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path = '']) => path);
    assert.ok(links.length > 0);
    const missing = links.filter((path) => !existsSync(join(root, path)));
    assert.deepEqual(missing, []);
  });

  it('names only commands of ./dev and npm scripts that exist', async () => {
    const dev = await readFile(join(root, 'dev'), 'utf8');
    const manifest = await readFile(join(root, 'package.json'), 'utf8');
    for (const [, verb = ''] of readme.matchAll(/\.\/dev ([a-z]+)/g)) {
      assert.ok(dev.includes(`\n  ${verb})`), verb);
    }
    for (const [, script = ''] of readme.matchAll(/npm run ([a-z:]+)/g)) {
      assert.ok(manifest.includes(`"${script}":`), script);
    }
  });
});

describe('metric names', () => {
  const rows: readonly (readonly [string, MetricRow])[] = Object.entries(newMetrics);

  it('follow the rules of Prometheus where they are ours', () => {
    for (const [name, row] of rows) {
      assert.match(name, /^nmi_[a-z][a-z_]*$/);
      assert.equal(name.endsWith('_total'), row.type === 'counter', name);
      if (row.type === 'histogram') assert.match(name, /_seconds$/);
      assert.ok(row.help.endsWith('.') && row.help.length > 10, name);
      assert.equal(row.buckets !== undefined, row.type === 'histogram', name);
    }
  });

  it('keep the four families of the replaced system', () => {
    assert.deepEqual(Object.keys(oldMetrics), [
      'aadpodidentity_nmi_operations_duration_seconds',
      'aadpodidentity_imds_operations_duration_seconds',
      'aadpodidentity_imds_operations_errors_count',
      'aadpodidentity_kubernetes_api_operations_errors_count',
    ]);
  });

  it('have no label that a caller can grow without end', () => {
    for (const [name, row] of rows) {
      for (const label of row.labels) {
        assert.ok(!/pod|ip$|client|uid|path/.test(label), `${name} ${label}`);
      }
    }
  });
});
