import type { Binding, Pod } from './objects.ts';

/** The pod label whose value names the bindings of the pod. */
export const bindingLabel = 'aadpodidbinding';

/** The value of the pod's binding label; `undefined` when it has none. May be empty. */
export function bindingLabelOf(pod: Pick<Pod, 'labels'>): string | undefined {
  return Object.hasOwn(pod.labels, bindingLabel) ? pod.labels[bindingLabel] : undefined;
}

/** Whether the binding is one of those of the pod: by namespace, label and service account. */
export function matchesPod(binding: Binding, pod: Pod): boolean {
  const { namespace, selector } = binding;
  return (
    namespace === pod.namespace &&
    selector !== '' &&
    selector === bindingLabelOf(pod) &&
    isForAccountOf(binding, pod)
  );
}

export function isForAccountOf(binding: Binding, pod: Pick<Pod, 'serviceAccount'>): boolean {
  return binding.serviceAccount === '' || binding.serviceAccount === pod.serviceAccount;
}
