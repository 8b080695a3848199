import type { Pod } from './objects.ts';

/** The pod label whose value names the bindings of the pod. */
export const bindingLabel = 'aadpodidbinding';

/** The value of the pod's binding label; `undefined` when it has none. May be empty. */
export function bindingLabelOf(pod: Pod): string | undefined {
  return Object.hasOwn(pod.labels, bindingLabel) ? pod.labels[bindingLabel] : undefined;
}
