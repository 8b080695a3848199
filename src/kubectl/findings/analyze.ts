/** Every finding of a snapshot: of its pods, of its objects and of the owners of pods. Pure. */
import { nameOf, namespaceOf, type RawObject } from '../base/object.ts';
import { sortFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { examineObjects } from './objects.ts';
import { findOwnerLabels } from './owners.ts';
import { examinePod, wantsIdentity, type PodContext } from './pods.ts';

/** `CODE`, or `CODE=OBJECT` for one object, as `binding_unused=AzureIdentityBinding shop/old`. */
export type Suppression = string;

export function analyze(context: PodContext): readonly Finding[] {
  const ofPods = context.snapshot.pods.filter(isExamined).flatMap((pod) => {
    const findings = examinePod(pod, context)?.findings ?? [];
    return wantsIdentity(pod, findings) ? findings : [];
  });
  const all = [
    ...ofPods,
    ...examineObjects(context),
    ...findOwnerLabels(context.snapshot.workloads),
  ];
  // The owner of several pods is found with each of them.
  const byText = new Map(all.map((each) => [`${each.code} ${each.object} ${each.text}`, each]));
  return sortFindings([...byText.values()]);
}

export function suppress(
  findings: readonly Finding[],
  suppressions: readonly Suppression[],
): readonly Finding[] {
  return findings.filter(
    ({ code, object }) =>
      !suppressions.includes(code) && !suppressions.includes(`${code}=${object}`),
  );
}

/** Pods that have ended send no requests. */
function isExamined(pod: RawObject): boolean {
  const status = pod['status'];
  const phase =
    typeof status === 'object' && status !== null && 'phase' in status ? status.phase : '';
  return (
    nameOf(pod) !== '' && namespaceOf(pod) !== '' && phase !== 'Succeeded' && phase !== 'Failed'
  );
}
