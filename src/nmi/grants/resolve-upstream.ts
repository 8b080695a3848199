/**
 * How tokens of an `AzureIdentity` are requested. Only well-formed ids and names are sent: a name
 * with a slash is another path of the Kubernetes API. Pure.
 */
import { systemClock, type Clock } from '../../base/time/clock.ts';
import { isGuid } from '../../cache/index/identifiers.ts';
import type { ObjectName } from '../../cache/index/object-name.ts';
import type { Identity, Pod } from '../../cache/index/objects.ts';
import type { AuthorityResult } from '../sources/entra/clouds.ts';
import {
  credentialKinds,
  credentialOfPod,
  kindsOfType,
  type EntraCredential,
} from '../sources/entra/credentials/kinds.ts';
import type { EntraIdentity } from '../sources/entra/entra-identity.ts';
import { parseNodeIdentity } from '../sources/node-identity.ts';
import type { Revocable } from '../sources/source.ts';
import type { UpstreamIdentity } from '../sources/upstream-identity.ts';

export type UpstreamChoice =
  | {
      readonly kind: 'upstream';
      readonly upstream: UpstreamIdentity;
      readonly auxiliary: readonly EntraIdentity[];
    }
  /** `problem` completes "AzureIdentity x ...". */
  | {
      readonly kind: 'unusable';
      readonly reason: 'identity_invalid' | 'identity_unsupported';
      readonly problem: string;
    };

export type ResolveAuthority = (adEndpoint: string) => AuthorityResult;

export type PodAccount = Pick<Pod, 'namespace' | 'serviceAccount'>;

const maxAuxiliaryTenants = 3;
const noTenants: readonly EntraIdentity[] = [];
/** By how much the clock of this node may be behind the one that a revocation was written by. */
const maxAheadMs = 5 * 60_000;
const notYet = invalid('has a spec.notBefore in the future');

export class UpstreamResolver {
  readonly #resolveAuthority: ResolveAuthority;
  readonly #clock: Pick<Clock, 'wallMs'>;
  /** For one account each: namespace users decide how many accounts there are. */
  readonly #choices = new WeakMap<Identity, { account: string; choice: UpstreamChoice }>();

  constructor(resolveAuthority: ResolveAuthority, clock: Pick<Clock, 'wallMs'> = systemClock) {
    this.#resolveAuthority = resolveAuthority;
    this.#clock = clock;
  }

  of(identity: Identity, pod: PodAccount): UpstreamChoice {
    const { notBeforeWallMs } = identity;
    if (notBeforeWallMs !== undefined && notBeforeWallMs > this.#clock.wallMs() + maxAheadMs) {
      return notYet;
    }
    return this.onceValid(identity, pod);
  }

  /** For callers that work it out when an index changes: none does when `spec.notBefore` comes. */
  onceValid(identity: Identity, pod: PodAccount): UpstreamChoice {
    const isOfPod = kindsOfType(identity.type).some((kind) => kind.isOfPod);
    const account = isOfPod ? `${pod.namespace}/${pod.serviceAccount}` : '';
    const known = this.#choices.get(identity);
    if (known?.account === account) return known.choice;
    const choice = this.#work(identity, pod);
    this.#choices.set(identity, { account, choice });
    return choice;
  }

  #work(identity: Identity, pod: PodAccount): UpstreamChoice {
    if (identity.type === 0) return ofNode(identity);
    if (kindsOfType(identity.type).length === 0) {
      const problem = `has the type ${identity.type}; known are ${knownTypes()}`;
      return { kind: 'unusable', reason: 'identity_unsupported', problem };
    }
    return this.#ofEntra(identity, pod);
  }

  /** An application that authenticates with a token of the pod's service account. */
  ofServiceAccount(pod: PodAccount, clientId: string, tenantId: string): UpstreamChoice {
    if (!isGuid(clientId)) return invalid('has a client id that is no GUID');
    const authority = this.#resolveAuthority('');
    if (!authority.ok) return invalid(authority.problem);
    if (!isTenant(tenantId)) return invalid('has no usable tenant id');
    const credential = credentialOfPod(accountOf(pod), authority.accountAudience);
    return toEntra(authority.authority, tenantId, [], clientId, credential, {});
  }

  #ofEntra(identity: Identity, pod: PodAccount): UpstreamChoice {
    const { entra, clientId } = identity;
    if (entra === undefined) throw new TypeError('an identity of Entra ID without its settings');
    if (entra.chain === undefined && !isGuid(clientId)) {
      return invalid('has a spec.clientID that is no GUID');
    }
    if (!isTenant(entra.tenantId)) {
      const field = entra.chain === undefined ? 'spec.tenantID' : 'spec.application.tenantID';
      return invalid(`has a ${field} that is neither a GUID nor a domain name`);
    }
    const authority = this.#resolveAuthority(entra.adEndpoint);
    if (!authority.ok) return invalid(authority.problem);
    const { authority: host, audience: legAudience, accountAudience: audience } = authority;
    const kinds = kindsOfType(identity.type);
    const revocation = revocationOf(identity);
    const settings = {
      namespace: identity.namespace,
      entra,
      serviceAccount: accountOf(pod),
      authority: host,
      audience,
      legAudience,
      revocation,
    };
    const credential = kinds.map((kind) => kind.parse(settings)).find((each) => each !== undefined);
    if (credential === undefined) return invalid('names no credential');
    if (typeof credential === 'string') return invalid(credential);
    // In the replaced system only secrets had auxiliary tenants, and more than three were refused.
    const hasAuxiliary = kinds.some((kind) => kind.hasAuxiliaryTenants);
    const auxiliary = hasAuxiliary ? entra.auxiliaryTenantIds : [];
    if (auxiliary.length > maxAuxiliaryTenants) {
      return invalid(`has more than ${maxAuxiliaryTenants} spec.auxiliaryTenantIDs`);
    }
    if (!auxiliary.every(isTenant))
      return invalid('has spec.auxiliaryTenantIDs that are no tenants');
    return toEntra(host, entra.tenantId, auxiliary, clientId, credential, revocation);
  }
}

function ofNode(identity: Identity): UpstreamChoice {
  const upstream = parseNodeIdentity(identity, revocationOf(identity));
  return typeof upstream === 'string'
    ? invalid(upstream)
    : { kind: 'upstream', upstream, auxiliary: noTenants };
}

function revocationOf({ notBeforeWallMs }: Identity): Revocable {
  return notBeforeWallMs === undefined ? {} : { notBeforeWallMs };
}

function accountOf({ namespace, serviceAccount }: PodAccount): ObjectName {
  return { namespace, name: serviceAccount };
}

function knownTypes(): string {
  const texts = credentialKinds.map(({ type, typeTitle }) => `${type} (${typeTitle})`);
  return new Intl.ListFormat('en-GB').format(new Set(['0 (user-assigned identity)', ...texts]));
}

function toEntra(
  authority: string,
  tenantId: string,
  auxiliaryTenantIds: readonly string[],
  clientId: string,
  credential: EntraCredential,
  revocation: Revocable,
): UpstreamChoice {
  const inTenant = (tenant: string): EntraIdentity => ({
    kind: 'entra',
    authority,
    tenantId: tenant.toLowerCase(),
    clientId: clientId.toLowerCase(),
    credential,
    ...revocation,
  });
  const auxiliary = auxiliaryTenantIds.length === 0 ? noTenants : auxiliaryTenantIds.map(inTenant);
  return { kind: 'upstream', upstream: inTenant(tenantId), auxiliary };
}

function invalid(problem: string): UpstreamChoice {
  return { kind: 'unusable', reason: 'identity_invalid', problem };
}

function isTenant(text: string): boolean {
  if (isGuid(text)) return true;
  return (
    text.length <= 253 && /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$/i.test(text)
  );
}
