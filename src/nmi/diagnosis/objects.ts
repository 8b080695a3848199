/**
 * What is wrong with an `AzureIdentity` or an `AzureIdentityBinding`, by the same parser, rules and
 * words as the answers to pods. Unknown here, and no finding: whether Azure assigned an identity to
 * the nodes, and whether Entra ID accepts a credential. Pure.
 */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { maxBindingsOfLabel } from '../../cache/index/grant-index.ts';
import { fullName, type ObjectName } from '../../cache/index/object-name.ts';
import type { Binding, Identity } from '../../cache/index/objects.ts';
import { printable, sentence } from '../../base/printable.ts';
import type { IdentityOwners } from '../grants/identity-owners.ts';
import { correctIt, fixOfName, wordsOfLacking } from '../grants/refusal-text.ts';
import type { UpstreamResolver } from '../grants/resolve-upstream.ts';
import type { Parsed } from '../kube/watch/parse.ts';
import {
  isOfSecret,
  type SecretCredential,
  type SecretJudgment,
} from '../sources/entra/credentials/kinds.ts';
import { createFinding, type Finding, oneFinding } from './finding.ts';

/** The result of a check of a Secret; `unavailable` is no finding. */
export type SecretFinding = Exclude<SecretJudgment, { readonly kind: 'unavailable' }>;

export interface Rules {
  readonly upstreams: UpstreamResolver;
  readonly owners: IdentityOwners;
}

export function secretOfIdentity(
  parsed: Parsed<Identity>,
  { upstreams }: Pick<Rules, 'upstreams'>,
): SecretCredential | undefined {
  if (!parsed.ok) return undefined;
  const choice = upstreams.of(parsed.value, anyAccountOf(parsed.value));
  if (choice.kind === 'unusable' || choice.upstream.kind !== 'entra') return undefined;
  const { credential } = choice.upstream;
  return isOfSecret(credential) ? credential : undefined;
}

export function findingOfIgnored(object: string, reason: string): Finding {
  const text = `The agent ignores it: ${printable(reason)}.`;
  return createFinding('object_unusable', { object, text, fix: correctIt });
}

/** The first is why pods get no token of it. @param secret undefined if it was not checked. */
export function findingsOfIdentity(
  ref: ObjectName,
  parsed: Parsed<Identity>,
  secret: SecretFinding | undefined,
  { upstreams, owners }: Rules,
): readonly Finding[] {
  const object = `AzureIdentity ${fullName(ref)}`;
  if (!parsed.ok) return [findingOfIgnored(object, parsed.reason)];
  const identity = parsed.value;
  const choice = upstreams.of(identity, anyAccountOf(identity));
  if (choice.kind === 'unusable') {
    const text = `${object} ${printable(choice.problem)}.`;
    return oneFinding(choice.reason, { object, text, fix: correctIt });
  }
  const lacking = owners.refusing(identity.namespace, choice.upstream);
  return [
    ...findingsOfSecret(object, secret),
    ...(lacking === undefined
      ? []
      : oneFinding('identity_not_owned', {
          object,
          ...wordsOfLacking(object, lacking, identity.namespace),
        })),
  ];
}

function findingsOfSecret(object: string, secret: SecretFinding | undefined): readonly Finding[] {
  switch (secret?.kind) {
    case undefined:
    case 'usable':
      return [];
    case 'missing': {
      const text = sentence(secret.problem);
      return oneFinding('credential_missing', { object, text, fix: 'Create it.' });
    }
    case 'unusable':
      return oneFinding('credential_invalid', { object, text: sentence(secret.problem) });
  }
}

export interface BindingFacts {
  /** The identity that it names; undefined if there is none. */
  readonly identity?: Parsed<Identity> | undefined;
  readonly meant?: string | undefined;
  /** More bindings have its selector than are used, and it is not among the oldest. */
  readonly isSurplus?: boolean;
}

/** Its own faults, not those of the identity that it names. */
export function findingsOfBinding(
  ref: ObjectName,
  parsed: Parsed<Binding>,
  facts: BindingFacts = {},
): readonly Finding[] {
  const object = `AzureIdentityBinding ${fullName(ref)}`;
  if (!parsed.ok) return [findingOfIgnored(object, parsed.reason)];
  return [
    ...findingsOfSelector(object, parsed.value, facts.isSurplus),
    ...findingsOfName(object, parsed.value, facts),
  ];
}

function findingsOfName(
  object: string,
  { namespace, identityName }: Binding,
  { identity, meant }: BindingFacts,
): readonly Finding[] {
  if (identity?.ok === true) return [];
  const name = printable(identityName);
  if (identity !== undefined) {
    const text = `The agent ignores AzureIdentity ${name}: ${printable(identity.reason)}.`;
    return oneFinding('identity_missing', { object, text, fix: correctIt });
  }
  const text =
    identityName === ''
      ? 'Its spec.azureIdentity is empty.'
      : `Namespace ${namespace} has no AzureIdentity ${name}.`;
  const fix = fixOfName(identityName, meant, namespace);
  return oneFinding('identity_missing', { object, text, fix });
}

export const labelValue = /^[0-9A-Za-z](?:[-0-9A-Z_a-z.]{0,61}[0-9A-Za-z])?$/;

function findingsOfSelector(
  object: string,
  { selector }: Binding,
  isSurplus = false,
): readonly Finding[] {
  const of = (text: string, fix: string) => oneFinding('selector_unusable', { object, text, fix });
  if (selector === '') {
    const fix = `Set it to the pods' label ${bindingLabel}.`;
    return of('Its spec.selector is empty and matches no pod.', fix);
  }
  if (!labelValue.test(selector)) {
    const text = 'Its spec.selector is no value that a label can have, so it matches no pod.';
    return of(text, correctIt);
  }
  if (!isSurplus) return [];
  const text = `More than ${maxBindingsOfLabel} bindings have its selector, and only the oldest count.`;
  return of(text, 'Delete some of them.');
}

/** The pod's service account does not decide whether an identity is valid. */
function anyAccountOf({ namespace }: Identity): { namespace: string; serviceAccount: string } {
  return { namespace, serviceAccount: 'default' };
}
