/** How a namespaced object of Kubernetes is named, and the key that maps keep it under. */

export interface ObjectName {
  readonly namespace: string;
  readonly name: string;
}

/** Neither a namespace nor a label value may contain a slash, so the first one separates. */
export function objectKey(namespace: string, name: string): string {
  return `${namespace}/${name}`;
}

/** Of an object, as people and log lines name it; a key, too. */
export function fullName({ namespace, name }: ObjectName): string {
  return objectKey(namespace, name);
}
