/** Names of namespaced Kubernetes objects, and their keys in maps. */

export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/** Neither a namespace nor a label value may contain a slash, so the first one separates. */
export function objectKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

/** `NAMESPACE/NAME`, for log lines and texts; also usable as a key. */
export function fullName({ namespace, name }: ObjectName): string {
  return objectKey(namespace, name);
}
