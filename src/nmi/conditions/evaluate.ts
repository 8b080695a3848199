/**
 * What is right and wrong with an `AzureIdentity` and an `AzureIdentityBinding`, as conditions, by
 * the same parser, rules and reasons as the agents' answers to pods. Pure.
 *
 * Unknown here, and in no condition: whether Azure assigned an identity to the nodes, and whether
 * Entra ID accepts a credential.
 */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import type { ObjectName } from '../../cache/index/object-name.ts';
import { maxBindingsOfLabel } from '../../cache/index/grant-index.ts';
import type { Binding, Identity } from '../../cache/index/objects.ts';
import { printable } from '../../base/printable.ts';
import type { IdentityOwners } from '../grants/identity-owners.ts';
import { clauseOfLacking } from '../grants/refusal-text.ts';
import type { UpstreamResolver } from '../grants/resolve-upstream.ts';
import type { SecretAccess } from '../kube/accounts/secrets.ts';
import { secretOf } from '../sources/entra/credentials/kinds.ts';
import { isFalse, isTrue, isUnknown, type Condition, type ConditionType } from './condition.ts';
import type { Observed } from './observed.ts';

/** The result of a check of a Secret; `unavailable` is no finding. */
export type SecretFinding = Exclude<SecretAccess, { readonly kind: 'unavailable' }>;

export interface Rules {
  readonly upstreams: UpstreamResolver;
  readonly owners: IdentityOwners;
}

/** The Secret that an identity's conditions depend on. */
export function secretOfIdentity(
  { parsed }: Observed<Identity>,
  { upstreams }: Pick<Rules, 'upstreams'>,
): ObjectName | undefined {
  if (!parsed.ok) return undefined;
  const choice = upstreams.of(parsed.value, anyAccountOf(parsed.value));
  if (choice.kind === 'unusable' || choice.upstream.kind !== 'entra') return undefined;
  return secretOf(choice.upstream.credential);
}

/** @param secret the finding for `secretOfIdentity`; ignored if there is no such Secret. */
export function conditionsOfIdentity(
  { parsed }: Observed<Identity>,
  secret: SecretFinding | undefined,
  { upstreams, owners }: Rules,
): readonly Condition[] {
  const invalid = (condition: Condition) => [
    condition,
    { ...condition, type: 'CredentialReadable', status: 'Unknown' } as const,
    { ...condition, type: 'Ready' } as const,
  ];
  if (!parsed.ok)
    return invalid(isFalse('Valid', 'identity_invalid', ignoredText('it', parsed.reason)));
  const identity = parsed.value;
  const choice = upstreams.of(identity, anyAccountOf(identity));
  if (choice.kind === 'unusable') {
    const text = `AzureIdentity ${identity.name} ${printable(choice.problem)}. Correct it.`;
    return invalid(isFalse('Valid', choice.reason, text));
  }
  const valid = isTrue('Valid');
  const readable = conditionOfSecret(secret);
  if (readable.status === 'False') return [valid, readable, { ...readable, type: 'Ready' }];
  const lacking =
    owners.mode === 'enforce' ? owners.lacking(identity.namespace, choice.upstream) : undefined;
  if (lacking === undefined) return [valid, readable, isTrue('Ready')];
  const text = `AzureIdentity ${identity.name} ${clauseOfLacking(lacking, identity.namespace)}`;
  return [valid, readable, isFalse('Ready', 'identity_not_owned', text)];
}

function conditionOfSecret(secret: SecretFinding | undefined): Condition {
  const type = 'CredentialReadable';
  switch (secret?.kind) {
    case undefined:
    case 'readable':
      return isTrue(type);
    case 'missing':
      return isFalse(type, 'credential_missing', `${sentence(secret.problem)} Create it.`);
    case 'misnamed':
    case 'forbidden':
      return isFalse(type, 'credential_invalid', sentence(secret.problem));
  }
}

/** An identity that a binding names, and its condition `Ready`. */
export interface NamedIdentity {
  readonly identity: Observed<Identity>;
  readonly ready: Condition;
}

/**
 * @param named undefined if there is no such identity.
 * @param isSurplus more bindings have its selector than are used, and it is not among the oldest.
 */
export function conditionsOfBinding(
  { parsed }: Observed<Binding>,
  named: NamedIdentity | undefined,
  isSurplus: boolean,
): readonly Condition[] {
  if (!parsed.ok) {
    const text = ignoredText('it', parsed.reason);
    return [
      isUnknown('IdentityFound', 'binding_missing', text),
      isFalse('SelectorUsable', 'binding_missing', text),
      isFalse('Ready', 'binding_missing', text),
    ];
  }
  const found = conditionOfName(parsed.value, named);
  const usable = conditionOfSelector(parsed.value, isSurplus);
  const wrong = [usable, found].find(({ status }) => status === 'False');
  if (wrong !== undefined) return [found, usable, { ...wrong, type: 'Ready' }];
  return [found, usable, named?.ready ?? isTrue('Ready')];
}

function conditionOfName(
  { namespace, identityName }: Binding,
  named: NamedIdentity | undefined,
): Condition {
  const type: ConditionType = 'IdentityFound';
  const reason = 'identity_missing';
  if (identityName === '') {
    const text = 'spec.azureIdentity is empty. Set it to the name of an AzureIdentity.';
    return isFalse(type, reason, text);
  }
  const name = printable(identityName);
  if (named === undefined) {
    const text = `Namespace ${namespace} has no AzureIdentity ${name}. Create it, or correct spec.azureIdentity.`;
    return isFalse(type, reason, text);
  }
  const { parsed } = named.identity;
  if (parsed.ok) return isTrue(type);
  return isFalse(type, reason, ignoredText(`AzureIdentity ${name}`, parsed.reason));
}

/** A valid value of a pod's label. */
const labelValue = /^[0-9A-Za-z](?:[-0-9A-Z_a-z.]{0,61}[0-9A-Za-z])?$/;

function conditionOfSelector({ selector }: Binding, isSurplus: boolean): Condition {
  const type: ConditionType = 'SelectorUsable';
  const reason = 'binding_missing';
  if (selector === '') {
    const text = `spec.selector is empty and matches no pod. Set it to the pods' label ${bindingLabel}.`;
    return isFalse(type, reason, text);
  }
  if (!labelValue.test(selector)) {
    const text =
      'spec.selector is no value that a label can have, so it matches no pod. Correct it.';
    return isFalse(type, reason, text);
  }
  if (!isSurplus) return isTrue(type);
  const text = `More than ${maxBindingsOfLabel} bindings have this selector, and only the oldest count. Delete some of them.`;
  return isFalse(type, reason, text);
}

function ignoredText(object: string, reason: string): string {
  return `The agent ignores ${object}: ${printable(reason)}. Correct it.`;
}

function sentence(clause: string): string {
  return `${clause.charAt(0).toUpperCase()}${clause.slice(1)}.`;
}

/** The pod's service account does not decide whether an identity is valid. */
function anyAccountOf({ namespace }: Identity): { namespace: string; serviceAccount: string } {
  return { namespace, serviceAccount: 'default' };
}
