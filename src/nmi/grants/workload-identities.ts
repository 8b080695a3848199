/** Pods set up for Workload Identity alone, whose SDK is older and only knows IMDS. */
import type { ObjectName } from '../../cache/index/object-name.ts';
import { normaliseClientId } from '../../cache/index/identifiers.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { KnownServiceAccount, ServiceAccounts } from '../kube/accounts/service-accounts.ts';

export type WorkloadChoice =
  | { readonly kind: 'none' }
  | { readonly kind: 'unknown' }
  /** Its service account is not returned now, may not be read by the agent, or names no application. */
  | { readonly kind: 'unavailable' | 'unreadable' | 'unannotated'; readonly account: ObjectName }
  | { readonly kind: 'application'; readonly clientId: string; readonly tenantId: string };

const useLabel = 'azure.workload.identity/use';
const none: WorkloadChoice = { kind: 'none' };
const unknown: WorkloadChoice = { kind: 'unknown' };

export class WorkloadIdentities {
  readonly #accounts: ServiceAccounts;
  readonly #defaultTenantId: string;

  constructor(accounts: ServiceAccounts, defaultTenantId: string) {
    this.#accounts = accounts;
    this.#defaultTenantId = defaultTenantId;
  }

  get generation(): number {
    return this.#accounts.generation;
  }

  onChange(listener: () => void): () => void {
    return this.#accounts.onChange(listener);
  }

  /** Fresh enough for a decision. Never waits: after `unknown`, `onChange` follows. */
  of(pod: Pod): WorkloadChoice {
    const account = accountOf(pod);
    if (account === undefined) return none;
    const read = this.#accounts.peekFresh(account);
    switch (read?.kind) {
      case undefined:
        return unknown;
      case 'known':
        return this.#choose(account, read.account);
      case 'forbidden':
        return { kind: 'unreadable', account };
      case 'unavailable':
        return { kind: 'unavailable', account };
    }
  }

  /** From the last read, however old: keeps the tokens that an idle pod may request again. */
  lastOf(pod: Pod): WorkloadChoice {
    const account = accountOf(pod);
    if (account === undefined) return none;
    const known = this.#accounts.peek(account);
    return known === undefined ? unknown : this.#choose(account, known);
  }

  #choose(account: ObjectName, known: KnownServiceAccount): WorkloadChoice {
    if (known === 'missing' || known.clientId === '') return { kind: 'unannotated', account };
    const tenantId = known.tenantId === '' ? this.#defaultTenantId : known.tenantId;
    return { kind: 'application', clientId: normaliseClientId(known.clientId), tenantId };
  }
}

function accountOf({ labels, namespace, serviceAccount }: Pod): ObjectName | undefined {
  if (labels[useLabel] !== 'true' || serviceAccount === '') return undefined;
  return { namespace, name: serviceAccount };
}
