import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Descriptor } from '../../scripts/image/oci.ts';
import { packChart } from '../../scripts/release/chart.ts';
import { repositoryRoot } from '../conventions/tree.ts';

const manifest = readFileSync(join(repositoryRoot, 'package.json'), 'utf8');
const { version } = JSON.parse(manifest) as { readonly version: string };

describe('the chart of a release', () => {
  let folder = '';
  let number = 0;
  let chart = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-chart-release-'));
    chart = join(folder, 'a-chart');
    cpSync(join(repositoryRoot, 'deploy/chart'), chart, { recursive: true });
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function packAs(wanted: string) {
    const [results, work] = [join(folder, `results-${number}`), join(folder, `work-${number++}`)];
    for (const made of [results, work]) mkdirSync(made);
    const facts = { version: wanted, epoch: 1_700_000_000, labels: { title: 'a chart' } };
    return { results, work, ...packChart({ chart, results, work, ...facts }) };
  }

  it('has the folder that helm expects, and the same bytes whatever the umask was', () => {
    const one = packAs(version);
    chmodSync(join(chart, 'values.yaml'), 0o600);
    const other = packAs(version);
    assert.equal(one.packed, `entra-pod-identity-${version}.tgz`);
    for (const file of [one.packed, one.archive]) {
      const [left, right] = [one, other].map(({ results }) => readFileSync(join(results, file)));
      assert.ok(left !== undefined && right !== undefined && left.equals(right), file);
    }
    const path = join(one.results, one.packed);
    const { stdout } = spawnSync('tar', ['-tzf', path], { encoding: 'utf8' });
    const names = stdout.trim().split('\n');
    assert.ok(names.includes('entra-pod-identity/Chart.yaml'), stdout);
    assert.ok(names.includes('entra-pod-identity/crds/crds.yaml'), stdout);
    assert.ok(names.every((name) => name.startsWith('entra-pod-identity/')));
  });

  it('is the artifact that helm pulls: its configuration is Chart.yaml, its layer the packed chart', () => {
    const { results, work, packed, manifest: top } = packAs(version);
    const blob = ({ digest }: Descriptor): Buffer =>
      readFileSync(join(work, 'chart-layout/blobs', digest.replace(':', '/')));
    const { config, layers, annotations } = JSON.parse(blob(top).toString()) as {
      readonly config: Descriptor;
      readonly layers: readonly Descriptor[];
      readonly annotations: unknown;
    };
    assert.deepEqual(annotations, { title: 'a chart' });
    assert.equal(config.mediaType, 'application/vnd.cncf.helm.config.v1+json');
    const { name, appVersion } = JSON.parse(blob(config).toString()) as Record<string, unknown>;
    assert.deepEqual([name, appVersion], ['entra-pod-identity', version]);
    const [layer] = layers;
    assert.equal(layer?.mediaType, 'application/vnd.cncf.helm.chart.content.v1.tar+gzip');
    const content = readFileSync(join(results, packed));
    assert.equal(layer.digest, `sha256:${createHash('sha256').update(content).digest('hex')}`);
  });

  it('has the version of package.json', () => {
    assert.throws(() => packAs('9.9.9'), /Chart\.yaml has another version than 9\.9\.9/);
  });
});
