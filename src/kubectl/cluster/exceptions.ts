/** AzurePodIdentityExceptions as they are stored. */
import { isExcepted } from '../../cache/index/excepted-labels.ts';
import { labelsOf, specOf, stringsAt, type RawObject } from '../base/object.ts';

export function podLabelsOf(exception: RawObject): ReadonlyMap<string, string> {
  return stringsAt(specOf(exception), 'podLabels');
}

/** The exception also has to be in the pod's namespace. */
export function hasExceptedLabel(pod: RawObject, exception: RawObject): boolean {
  const [labels, podLabels] = [labelsOf(pod), podLabelsOf(exception)];
  return isExcepted(Object.fromEntries(labels), Object.fromEntries(podLabels));
}
