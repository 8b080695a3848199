/** Findings about an `AzureIdentity` or an `AzureIdentityBinding` as its status conditions. Pure. */
import type { Binding, Identity } from '../../cache/index/objects.ts';
import type { Finding } from '../diagnosis/finding.ts';
import {
  findingsOfBinding,
  findingsOfIdentity,
  type BindingFacts,
  type Rules,
  type SecretFinding,
} from '../diagnosis/objects.ts';
import { inOneText } from '../grants/refusal-text.ts';
import type { Condition, ConditionStatus, ConditionType } from './condition.ts';
import type { Observed } from './observed.ts';

/** @param secret the finding for `secretOfIdentity`; ignored if there is no such Secret. */
export function conditionsOfIdentity(
  object: Observed<Identity>,
  secret: SecretFinding | undefined,
  rules: Rules,
): readonly Condition[] {
  const findings = findingsOfIdentity(object, object.parsed, secret, rules);
  const unreadable = findings.find(({ code }) => code.startsWith('credential_'));
  const invalid = findings.find(({ code }) => invalidCodes.has(code));
  return [
    conditionOf('Valid', invalid),
    invalid === undefined
      ? conditionOf('CredentialReadable', unreadable)
      : conditionOf('CredentialReadable', invalid, 'Unknown'),
    conditionOf('Ready', findings[0]),
  ];
}

const invalidCodes: ReadonlySet<Finding['code']> = new Set([
  'object_unusable',
  'identity_invalid',
  'identity_unsupported',
]);

/** @param ready of the identity that it names; undefined if there is none. */
export function conditionsOfBinding(
  object: Observed<Binding>,
  facts: BindingFacts,
  ready: Condition | undefined,
): readonly Condition[] {
  const findings = findingsOfBinding(object, object.parsed, facts);
  const of = (code: Finding['code']) => findings.find((each) => each.code === code);
  const [ignored] = object.parsed.ok ? [] : findings;
  return [
    ignored === undefined
      ? conditionOf('IdentityFound', of('identity_missing'))
      : conditionOf('IdentityFound', ignored, 'Unknown'),
    conditionOf('SelectorUsable', ignored ?? of('selector_unusable')),
    findings.length === 0 && ready !== undefined ? ready : conditionOf('Ready', findings[0]),
  ];
}

function conditionOf(
  type: ConditionType,
  finding: Finding | undefined,
  status: ConditionStatus = finding === undefined ? 'True' : 'False',
): Condition {
  return {
    type,
    status,
    reason: finding?.code ?? 'ok',
    message: finding ? inOneText(finding) : '',
  };
}
