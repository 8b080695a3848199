/** Checks names of service accounts before they become part of a path. */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { isDnsLabel, isDnsSubdomain } from '../../../base/dns-name.ts';

/** Path of the service account; `undefined` for an invalid name. */
export function serviceAccountPath({ namespace, name }: ObjectName): string | undefined {
  if (!isDnsLabel(namespace) || !isDnsSubdomain(name)) return undefined;
  return `/api/v1/namespaces/${namespace}/serviceaccounts/${name}`;
}
