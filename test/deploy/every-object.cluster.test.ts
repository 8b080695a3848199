/**
 * Every object of the chart, the manifests and the policies, before real API servers: server-side
 * apply without a write, with strict field validation. The definitions of other projects' kinds
 * come from those projects.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { stringify } from 'yaml';
import {
  constraintFramework,
  prometheusOperator,
  provideModule,
} from '../cluster/support/go-module.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { objectsOf, type KubeObject } from './chart-render.ts';

const root = join(import.meta.dirname, '../..');
const monitors = provideModule(prometheusOperator);
const constraints = provideModule(constraintFramework);

/** The chart's renderings are the recorded ones; another test keeps these up to date. */
const files = globSync(['deploy/*.yaml', 'deploy/policies/*.yaml', 'test/deploy/goldens/*'], {
  cwd: root,
}).sort();

/** By group: why its objects cannot be tested, undefined if they can. */
const foreign: Readonly<Record<string, string | undefined>> = {
  'monitoring.coreos.com': monitors.missing,
  'templates.gatekeeper.sh': constraints.missing,
  // Gatekeeper itself makes this definition, from the template.
  'constraints.gatekeeper.sh': 'its definition is made by a running Gatekeeper',
  'cilium.io': 'its definition is not at hand',
};

const definitions = [
  [monitors, 'example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml'],
  [monitors, 'example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml'],
  [monitors, 'example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml'],
  [constraints, 'deploy/crds.yaml'],
] as const;

describeOnNewestVersion('all objects of deploy', (cluster) => {
  before(async () => {
    for (const [{ programs: folder }, file] of definitions) {
      if (folder !== undefined) await cluster().kubectl(['create', '-f', join(folder, file)]);
    }
    await cluster().apply(readFileSync(join(root, 'deploy/crds.yaml'), 'utf8'));
    await cluster().kubectl(['wait', '--for=condition=Established', 'crds', '--all']);
  });

  it('are many, of every kind', () => {
    assert.ok(files.length >= 12, files.join(' '));
    const kinds = new Set(files.flatMap((file) => load(file).map(({ kind }) => kind)));
    for (const kind of [
      'DaemonSet',
      'Deployment',
      'PodMonitor',
      'ServiceMonitor',
      'PrometheusRule',
      'Service',
      'NetworkPolicy',
    ]) {
      assert.ok(kinds.has(kind), kind);
    }
  });

  for (const file of files) {
    for (const [group, objects] of byGroup(load(file))) {
      const what = group === '' ? 'are taken' : `of ${group} are taken`;
      it(`${what}: ${file}`, { skip: foreign[group] ?? false }, async () => {
        const namespaces = new Set(objects.flatMap(({ metadata }) => metadata.namespace ?? []));
        for (const namespace of namespaces) await cluster().createNamespace(namespace);
        const yaml = objects.map((object) => stringify(object)).join('---\n');
        const taken = await cluster().applyOverHttp(yaml, { dryRun: true });
        assert.equal(taken.length, objects.length);
      });
    }
  }

  it('would be refused with an unknown field', async () => {
    const yaml = readFileSync(join(root, 'deploy/nmi.yaml'), 'utf8');
    const misspelt = yaml.replace('hostNetwork: true', 'hostnetwork: true');
    await assert.rejects(
      cluster().applyOverHttp(misspelt, { dryRun: true }),
      /hostnetwork: field not declared/,
    );
  });
});

function load(file: string): readonly KubeObject[] {
  return objectsOf(readFileSync(join(root, file), 'utf8'));
}

/** The groups of other projects separately, all others under the empty name. */
function byGroup(objects: readonly KubeObject[]): ReadonlyMap<string, readonly KubeObject[]> {
  return Map.groupBy(objects, ({ apiVersion }) => {
    const [group = ''] = apiVersion.split('/');
    return group in foreign ? group : '';
  });
}
