/**
 * A failure in a chain of credentials, with the leg that failed and its fix. Of the token that was
 * sent as the assertion, only its issuer, subject and audience are shown. Pure.
 */
import { stringAt } from '../../base/json-value.ts';
import { printable } from '../../base/printable.ts';
import { assertionOf } from '../sources/entra/credentials/kinds.ts';
import type { EntraIdentity } from '../sources/entra/entra-identity.ts';
import type { SourceFailure } from '../sources/source.ts';
import { claimsOf } from '../sources/token-fields.ts';
import { titleOfLeg, type UpstreamIdentity } from '../sources/upstream-identity.ts';

/** There is no token that could be sent as the assertion. */
export function failureOfLeg(failure: SourceFailure, leg: UpstreamIdentity): SourceFailure {
  return withNote(failure, `earlier leg of the chain: ${titleOfLeg(leg)}`);
}

/** @param assertion that Entra ID was sent for the identity. */
export function refusalOfLeg(
  failure: SourceFailure,
  identity: EntraIdentity,
  assertion: string,
): SourceFailure {
  const note = `leg of the chain: ${titleOfLeg(identity)}`;
  const fix = fixOf(failure, identity, assertion);
  return withNote(failure, fix === '' ? note : `${note}; ${fix}`);
}

/** The leg that failed first is named, and not again by those that needed its token. */
function withNote(failure: SourceFailure, note: string): SourceFailure {
  const { description } = failure;
  if (description.includes('leg of the chain: ')) return failure;
  return { ...failure, description: `${description} [${note}]` };
}

const fixes: ReadonlyMap<number, string> = new Map([
  [
    700231,
    'the identity that its managed identity stands for got its token by federation; spec.clientID must be a managed identity that is assigned to the nodes',
  ],
  [
    700236,
    'register the application in the tenant of the managed identity, as multi-tenant, and name in spec.application.tenantID the tenant whose token is wanted',
  ],
  [700016, 'create the service principal of the application in that tenant'],
]);

/** An agent identity has no application; its credential is a token of its blueprint. */
const fixesOfAgent: ReadonlyMap<number, string> = new Map([
  [
    700016,
    'spec.agentIdentity must be an agent identity that its blueprint created in that tenant',
  ],
]);

function fixOf(
  { reason, details }: SourceFailure,
  { credential }: EntraIdentity,
  assertion: string,
): string {
  const chain = assertionOf(credential);
  if (chain === undefined) return '';
  const isOfAgent = chain.assertedBy.kind === 'entra';
  const byCode = isOfAgent ? fixesOfAgent : fixes;
  const known = details?.errorCodes.map((code) => byCode.get(code)).find(Boolean);
  if (known !== undefined) return known;
  if (reason !== 'federation_refused') return '';
  if (isOfAgent) return 'spec.application must be the blueprint of this agent identity';
  const claims = claimsOf(assertion);
  const read = (name: string): string => printable(stringAt(claims, name));
  return `it needs a federated credential with issuer ${read('iss')}, subject ${read('sub')} and audience ${chain.audience}`;
}
