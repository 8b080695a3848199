/** The names of service accounts, looked at before they become a part of a path. */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { isDnsLabel, isDnsSubdomain } from '../../base/dns-name.ts';

/** Where the service account is; `undefined` for a name that none can have. */
export function serviceAccountPath({ namespace, name }: ObjectName): string | undefined {
  if (!isDnsLabel(namespace) || !isDnsSubdomain(name)) return undefined;
  return `/api/v1/namespaces/${namespace}/serviceaccounts/${name}`;
}
