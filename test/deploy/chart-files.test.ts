/** Checks of the chart that need no helm. */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { chartFolder, renderFlags, renderSchema } from '../../scripts/chart-schema.ts';
import { copies } from '../../scripts/manifests.ts';
import { hasFlag, options } from '../../src/nmi/config/options.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const read = (path: string): Promise<string> => readFile(join(deploy, path), 'utf8');

describe('the files of the chart', () => {
  it('have a fresh schema and fresh flags (npm run docs writes them)', async () => {
    const schema = await readFile(join(chartFolder, 'values.schema.json'), 'utf8');
    assert.equal(schema, await renderSchema());
    const flags = await readFile(join(chartFolder, 'templates/_flags.tpl'), 'utf8');
    assert.equal(flags, renderFlags());
  });

  it('take every federation that the definition has', async () => {
    const enumIn = (text: string, pattern: RegExp) =>
      (pattern.exec(text)?.[1] ?? '')
        .match(/[a-z]+/g)
        ?.filter((each) => each !== 'null')
        .sort();
    const ofDefinition = enumIn(await read('crds.yaml'), /enum: \['', (pod[^\]]*)\]/);
    assert.ok(ofDefinition?.includes('binding'));
    assert.deepEqual(
      enumIn(await renderSchema(), /"federation": \{ "enum": \[([^\]]*)\]/),
      ofDefinition,
    );
  });

  it('have a value for every flag that does something', () => {
    const decidedByTemplates = [
      'node',
      'operation-mode',
      'force-namespaced',
      'kubeconfig',
      'agent-daemonset',
      'agent-namespace',
      'boot-guard-folder',
    ];
    const flags = renderFlags();
    for (const option of options) {
      const { name } = option;
      if (!hasFlag(option) || decidedByTemplates.includes(name)) continue;
      assert.match(flags, new RegExp(`"--?${name}"`), name);
    }
  });

  it('contain custom resources, alerts and dashboard byte for byte (node scripts/manifests.ts)', async () => {
    for (const [source, paths] of Object.entries(copies)) {
      for (const path of paths) assert.equal(await read(path), await read(source), path);
    }
  });

  it('have the version of the program', async () => {
    const manifest = await readFile(join(deploy, '../package.json'), 'utf8');
    const { version } = JSON.parse(manifest) as { readonly version: string };
    const chart = parse(await read('chart/Chart.yaml')) as {
      readonly version: string;
      readonly appVersion: string;
    };
    assert.deepEqual([chart.version, chart.appVersion], [version, version]);
  });

  it('are named by the docs in that version', async () => {
    const { version } = JSON.parse(await read('../package.json')) as { readonly version: string };
    const root = join(deploy, '..');
    const pages = globSync(['*.md', 'docs/*.md', 'deploy/**/*.{md,yaml}', 'deploy/Dockerfile'], {
      cwd: root,
    });
    for (const page of pages.filter((each) => each !== 'CHANGELOG.md')) {
      const text = await readFile(join(root, page), 'utf8');
      const named = text.matchAll(/(?:entra-pod-identity[:-]|newTag: |--version )(\d+\.\d+\.\d+)/g);
      for (const [whole, each] of named) assert.equal(each, version, `${page}: ${whole}`);
    }
  });
});
