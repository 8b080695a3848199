/** The names of service accounts, looked at before they become a part of a path. */
import type { ObjectName } from '../../../cache/index/object-name.ts';

const dnsLabel = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const dnsSubdomain = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;

/** Where the service account is; `undefined` for a name that none can have. */
export function serviceAccountPath({ namespace, name }: ObjectName): string | undefined {
  if (!dnsLabel.test(namespace) || name.length > 253 || !dnsSubdomain.test(name)) return undefined;
  return `/api/v1/namespaces/${namespace}/serviceaccounts/${name}`;
}
