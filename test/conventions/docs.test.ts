import assert from 'node:assert/strict';
import { existsSync, globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { scenarios } from '../../lab/scenarios/all.ts';
import { generatedPages, renderPage } from '../../docs/generate.ts';
import { newMetrics, oldMetrics, type MetricRow } from '../../src/nmi/telemetry/metric-table.ts';

const root = join(import.meta.dirname, '..', '..');
const names = globSync(['*.md', '{docs,deploy,bench,lab,test}/**/*.md'], { cwd: root });
const pages = await Promise.all(
  names.map(async (name) => ({ name, text: await readFile(join(root, name), 'utf8') })),
);

function pageOf(name: string): string {
  const page = pages.find((each) => each.name === name);
  assert.ok(page !== undefined, `there is no ${name}`);
  return page.text;
}

/** The anchor of a heading, as GitHub makes it. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = [...text.replaceAll(/^```.*?^```/gms, '').matchAll(/^#+ (.*)$/gm)];
  return new Set(
    headings.map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .replaceAll(' ', '-'),
    ),
  );
}

/** Links to a missing file or heading. */
function brokenLinks(name: string, text: string): readonly string[] {
  const links = [...text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)/g)];
  return links
    .filter(([, path = '', anchor]) => {
      const target = path === '' ? name : join(dirname(name), path);
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !anchorsOf(pageOf(target)).has(anchor);
    })
    .map(([link]) => `${name}: ${link}`);
}

describe('the documentation', () => {
  it('has fresh generated tables (npm run docs writes them)', () => {
    for (const name of generatedPages) assert.equal(renderPage(name, pageOf(name)), pageOf(name));
  });

  it('is reported as stale when a row changes', () => {
    const page = pageOf('docs/alerts.md');
    const stale = page.replace('`nmi_build_info`', '`nmi_other_info`');
    assert.notEqual(stale, page);
    assert.notEqual(renderPage('docs/alerts.md', stale), stale);
  });

  it('shows output of the lab with existing titles of scenarios', () => {
    const shown = [...pageOf('README.md').matchAll(/^▶ ([a-z-]+): (.+)$/gm)];
    assert.ok(shown.length >= 2);
    for (const [, scenario = '', title = ''] of shown) {
      const found = scenarios.find((each) => each.name === scenario);
      assert.ok(found?.title.startsWith(title.replace(/\.\.\.$/, '')), scenario);
    }
  });

  it('links to files and headings that exist', () => {
    assert.ok(pages.length > 20);
    assert.deepEqual(
      pages.flatMap(({ name, text }) => brokenLinks(name, text)),
      [],
    );
    const planted = '[a](nowhere.md) [b](#nothing) [c](../docs) [d](https://example.com)';
    assert.equal(brokenLinks('docs/limits.md', planted).length, 2);
  });

  it('leads from the README to every page of docs in one step', () => {
    const readme = pageOf('README.md');
    const missing = names
      .filter((name) => /^docs\/[a-z-]+\.md$/.test(name))
      .filter((name) => !readme.includes(`](${name}`));
    assert.deepEqual(missing, []);
  });

  it('has a README of at most 250 lines', () => {
    assert.ok(pageOf('README.md').split('\n').length <= 250);
  });

  it('names only commands of ./dev and npm scripts that exist', async () => {
    const dev = await readFile(join(root, 'dev'), 'utf8');
    const manifest = await readFile(join(root, 'package.json'), 'utf8');
    for (const { name, text } of pages) {
      for (const [, verb = ''] of text.matchAll(/\.\/dev ([a-z]+)/g)) {
        assert.ok(dev.includes(`\n  ${verb})`), `${name}: ./dev ${verb}`);
      }
      for (const [, script = ''] of text.matchAll(/npm run ([a-z:]+)/g)) {
        assert.ok(manifest.includes(`"${script}":`), `${name}: npm run ${script}`);
      }
    }
  });
});

describe('metric names', () => {
  const rows: readonly (readonly [string, MetricRow])[] = Object.entries(newMetrics);

  it('follow the rules of Prometheus if they are ours', () => {
    for (const [name, row] of rows) {
      // The process metrics have the names that all client libraries use.
      assert.match(name, /^(?:nmi|process)_[a-z][a-z_]*$/);
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

  it('have no label with a number of values that a caller can increase without limit', () => {
    for (const [name, row] of rows) {
      for (const label of row.labels) {
        assert.ok(!/pod|ip$|client|uid|path/.test(label), `${name} ${label}`);
      }
    }
  });
});
