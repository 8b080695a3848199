/** The resource id of a user-assigned identity. Pure. */
import { azLine, type AzLine } from './az.ts';

/** Names of Azure have no other characters. None of them starts like a flag or a file of az. */
const segment = String.raw`([\w(][\w.()-]*)`;
const identityId = new RegExp(
  `^/?subscriptions/${segment}/resourcegroups/${segment}/providers/Microsoft\\.ManagedIdentity/userAssignedIdentities/${segment}/?$`,
  'i',
);

/** Undefined for anything else, `[system]` and `@file` of az included. */
export function parseIdentityId(text: string) {
  const [, subscription, resourceGroup, name] = identityId.exec(text.trim()) ?? [];
  if (subscription === undefined || resourceGroup === undefined || name === undefined)
    return undefined;
  return { subscription, resourceGroup, name };
}

export function showClientIdLine(resourceId: string): AzLine {
  return parseIdentityId(resourceId) === undefined
    ? azLine(['identity', 'list'], { output: 'table' })
    : azLine(['identity', 'show'], { ids: resourceId.trim(), query: 'clientId', output: 'tsv' });
}
