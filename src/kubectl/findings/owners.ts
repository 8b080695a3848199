/** The binding label on a Deployment and not on its pod template: the most frequent mistake. */
import { asRecord, stringAt } from '../../base/json-value.ts';
import { bindingLabel } from '../../cache/index/binding-label.ts';
import {
  labelsOf,
  nameOf,
  namespaceOf,
  recordsAt,
  metadataOf,
  specOf,
  templateOf,
  titleOf,
  type RawObject,
} from '../base/object.ts';
import { type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import { matchesSelector } from './label-selector.ts';

export function findOwnerLabels(workloads: readonly RawObject[]): readonly Finding[] {
  return workloads.flatMap((workload) => {
    const label = labelsOf(workload).get(bindingLabel);
    const template = templateOf(workload);
    if (label === undefined || template === undefined) return [];
    if (labelsOf(template).has(bindingLabel)) return [];
    // A Job of a CronJob has the labels that the CronJob gave it.
    if (recordsAt(metadataOf(workload), 'ownerReferences').length > 0) return [];
    const title = `${stringAt(workload, 'kind')} ${titleOf(workload)}`;
    return oneFinding('label_on_owner', {
      object: title,
      text: `${title} has the label ${bindingLabel}=${label}, and its pod template has not: its pods get no identity.`,
      fix: `Move the label to ${pathOf(workload)}.metadata.labels: ${labelPatch(workload, bindingLabel, label)}`,
    });
  });
}

/** The workloads that may have created a pod. */
export function ownersOf(pod: RawObject, workloads: readonly RawObject[]): readonly RawObject[] {
  const references = recordsAt(metadataOf(pod), 'ownerReferences');
  return workloads.filter((workload) => {
    if (namespaceOf(workload) !== namespaceOf(pod)) return false;
    return references.some((reference) => {
      const [kind, name] = [stringAt(reference, 'kind'), stringAt(reference, 'name')];
      if (kind === workload['kind'] && name === nameOf(workload)) return true;
      if (kind === 'Job' && workload['kind'] === 'CronJob')
        return name.startsWith(`${nameOf(workload)}-`);
      // Between a pod and its Deployment there is a ReplicaSet, which users do not write.
      const isDeployment = kind === 'ReplicaSet' && workload['kind'] === 'Deployment';
      return isDeployment && matchesSelector(asRecord(specOf(workload)['selector']), labelsOf(pod));
    });
  });
}

function pathOf(workload: RawObject): string {
  return workload['kind'] === 'CronJob' ? 'spec.jobTemplate.spec.template' : 'spec.template';
}

export function labelPatch(workload: RawObject, key: string, value: string): string {
  const parts = [...pathOf(workload).split('.'), 'metadata', 'labels', key];
  const patch = parts.reduceRight<unknown>((inner, part) => ({ [part]: inner }), value);
  const kind = stringAt(workload, 'kind').toLowerCase();
  return `kubectl -n ${namespaceOf(workload)} patch ${kind} ${nameOf(workload)} -p '${JSON.stringify(patch)}'`;
}
