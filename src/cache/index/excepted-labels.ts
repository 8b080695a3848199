type Labels = Readonly<Record<string, string>>;

/**
 * Whether an AzurePodIdentityException with these `podLabels` applies to a pod of its namespace with
 * these labels: one equal label is enough, whatever the case of its value. Own keys only: a label
 * may be called `constructor`.
 */
export function isExcepted(labels: Labels, podLabels: Labels): boolean {
  for (const [key, value] of Object.entries(podLabels)) {
    if (!Object.hasOwn(labels, key)) continue;
    if (labels[key]?.toLowerCase() === value.toLowerCase()) return true;
  }
  return false;
}

/**
 * A key for each label: exceptions of a namespace match the pods that share one with them. Neither
 * part of a pod's label may contain `=`.
 */
export function exceptionKeys(namespace: string, labels: Labels): readonly string[] {
  return Object.entries(labels).map(([key, value]) => `${namespace}/${key}=${value.toLowerCase()}`);
}
