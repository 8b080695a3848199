/**
 * The situations that have the whole `output`, on a real API server with the real kubectl, beside the
 * process that writes conditions: the same words as without them.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { asRecord, stringAt } from '../../src/base/json-value.ts';
import { metadataOf, type RawObject } from '../../src/kubectl/base/object.ts';
import type { Condition } from '../../src/nmi/conditions/condition.ts';
import {
  openConditionsProcess,
  setNodes,
  type ConditionsProcess,
} from '../cluster/support/conditions-process.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import {
  agentSetUid,
  clearObjects,
  machineOf,
  putObjects,
  runOn,
  type RealMachine,
} from '../cluster/support/plugin.ts';
import { agentSet } from '../unit/kubectl/recorded-kubectl.ts';
import { readSituations, type Situation } from './situation.ts';
import { findingsIn, flagsOf, formOfConditions, withTeller } from './tellers.ts';

const deploy = join(import.meta.dirname, '../../deploy');
const group = '/apis/aadpodidentity.k8s.io/v1/namespaces';
const plurals: Readonly<Record<string, string>> = {
  AzureIdentity: 'azureidentities',
  AzureIdentityBinding: 'azureidentitybindings',
};

/** As a user writes it: without what the server sets. */
function manifestOf(object: RawObject): string {
  const { uid: _, creationTimestamp: __, ...metadata } = metadataOf(object);
  const text = JSON.stringify({ ...object, metadata });
  return text.replaceAll(stringAt(metadataOf(agentSet), 'uid'), agentSetUid);
}

const isYoung = ({ objects }: Situation) =>
  objects.some((each) => !stringAt(metadataOf(each), 'creationTimestamp').startsWith('2026-11-01'));

describeOnNewestVersion('a situation in a cluster', (cluster) => {
  let machine: RealMachine;
  let conditions: ConditionsProcess;

  before(async () => {
    machine = { ...machineOf(cluster()), api: cluster().admin };
    for (const name of ['shop', 'other', 'kube-system']) await cluster().createNamespace(name);
    await cluster().apply(await readFile(join(deploy, 'crds.yaml'), 'utf8'));
    await eventually(async () => cluster().apply(await readFile(join(deploy, 'nmi.yaml'), 'utf8')));
    await setNodes(cluster(), 1);
    conditions = await openConditionsProcess(cluster());
  });
  after(() => conditions[Symbol.asyncDispose]());

  const writtenOn = async (objects: readonly RawObject[]) => {
    const written = objects.map(async (object) => {
      const plural = plurals[String(object['kind'])];
      const { namespace, name } = metadataOf(object);
      if (plural === undefined) return [];
      const path = `${group}/${String(namespace)}/${plural}/${String(name)}`;
      const { status } = await cluster().admin.expect('GET', path);
      const list = (asRecord(status)?.['conditions'] ?? []) as readonly Condition[];
      return [[`${String(object['kind'])} ${String(namespace)}/${String(name)}`, list] as const];
    });
    return Object.fromEntries((await Promise.all(written)).flat());
  };

  for (const situation of readSituations()) {
    const { name, objects, request, expected } = situation;
    const { output, conditions: unhealthy, findings } = expected;
    if (output === undefined) continue;
    it(name, async () => {
      await clearObjects(cluster());
      await putObjects(cluster(), objects.map(manifestOf).join('\n---\n'));
      const analyzed = withTeller(findings, 'analyze');
      // One that is not at fault gets its conditions later.
      if (unhealthy !== undefined) {
        await eventually(async () => {
          const written = await writtenOn(objects);
          for (const list of Object.values(written)) assert.equal(list.length, 3);
          assert.deepEqual(formOfConditions(written, analyzed), unhealthy);
        }, 30_000);
      }
      const as = { ...machine, ...(isYoung(situation) ? { laterMs: 0 } : {}) };
      const explain = ['explain', 'pod', 'web', '-n', 'shop', ...flagsOf(request)];
      const { code, stdout, stderr } = await runOn(as, explain);
      assert.equal(`exit code ${code}\n${stdout}${stderr}`, output);
      const analysis = await runOn(as, ['analyze', '-n', 'shop']);
      assert.deepEqual(findingsIn(analysis.stdout), analyzed);
      if (unhealthy === undefined)
        assert.doesNotMatch(JSON.stringify(await writtenOn(objects)), /"False"/);
    });
  }
});
