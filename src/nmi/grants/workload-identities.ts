/**
 * Pods that are set up for Workload Identity and for nothing else: its label on the pod, its
 * annotations on the service account, no binding. An old SDK in such a pod, which knows only the
 * metadata service, gets tokens of the annotated application by federation. An option, off by
 * default: it gives an identity to pods that had none from this agent.
 */
import { objectKey, type ObjectName } from '../../cache/index/object-name.ts';
import { normaliseClientId } from '../../cache/index/identifiers.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type {
  KnownServiceAccount,
  ServiceAccountRead,
  ServiceAccounts,
} from '../kube/accounts/service-accounts.ts';

export type UnreadableAccount = Exclude<ServiceAccountRead, { kind: 'known' }>;

export type WorkloadChoice =
  /** The pod is not set up for Workload Identity. */
  | { readonly kind: 'none' }
  | { readonly kind: 'unknown' }
  /** The agent may not read its service account. */
  | { readonly kind: 'unreadable'; readonly account: ObjectName }
  | { readonly kind: 'unannotated'; readonly account: ObjectName }
  | { readonly kind: 'application'; readonly clientId: string; readonly tenantId: string };

const maxForbidden = 1_000;
const useLabel = 'azure.workload.identity/use';
const none: WorkloadChoice = { kind: 'none' };
const unknown: WorkloadChoice = { kind: 'unknown' };

export class WorkloadIdentities {
  readonly #accounts: ServiceAccounts;
  readonly #defaultTenantId: string;
  readonly #onUnreadable: (account: ObjectName, outcome: UnreadableAccount) => void;
  readonly #told = new WeakSet<UnreadableAccount>();
  readonly #forbidden = new Set<string>();

  /**
   * @param defaultTenantId for service accounts that name none; may be empty.
   * @param onUnreadable called for each failed read of an account that a pod needs now.
   */
  constructor(
    accounts: ServiceAccounts,
    defaultTenantId: string,
    onUnreadable: (account: ObjectName, outcome: UnreadableAccount) => void,
  ) {
    this.#accounts = accounts;
    this.#defaultTenantId = defaultTenantId;
    this.#onUnreadable = onUnreadable;
  }

  /** Grows whenever a pod's choice may have become another without the pod having changed. */
  get generation(): number {
    return this.#accounts.generation;
  }

  /** The returned function unsubscribes. */
  onChange(listener: () => void): () => void {
    return this.#accounts.onChange(listener);
  }

  /**
   * By what was read lately. Never waits: what is not known, or was known long ago, is being read
   * when this returns.
   */
  of(pod: Pod): WorkloadChoice {
    return this.#choose(pod, (account) =>
      this.#accounts.peekFresh(account.namespace, account.name),
    );
  }

  /** By what was read last, however long ago: to keep what a pod that rests may want again. */
  lastOf(pod: Pod): WorkloadChoice {
    return this.#choose(pod, (account) => this.#accounts.peek(account.namespace, account.name));
  }

  #choose(
    pod: Pod,
    peek: (account: ObjectName) => KnownServiceAccount | undefined,
  ): WorkloadChoice {
    if (pod.labels[useLabel] !== 'true' || pod.serviceAccount === '') return none;
    const account = { namespace: pod.namespace, name: pod.serviceAccount };
    const known = peek(account);
    if (known === undefined) {
      this.#read(account);
      return this.#forbidden.has(objectKey(account.namespace, account.name))
        ? { kind: 'unreadable', account }
        : unknown;
    }
    if (known === 'missing' || known.clientId === '') return { kind: 'unannotated', account };
    const tenantId = known.tenantId === '' ? this.#defaultTenantId : known.tenantId;
    return { kind: 'application', clientId: normaliseClientId(known.clientId), tenantId };
  }

  #read(account: ObjectName): void {
    void this.#accounts.read(account.namespace, account.name).then((outcome) => {
      if (this.#forbidden.size >= maxForbidden) this.#forbidden.clear();
      if (outcome.kind === 'forbidden')
        this.#forbidden.add(objectKey(account.namespace, account.name));
      else this.#forbidden.delete(objectKey(account.namespace, account.name));
      // A failure is given again, the same object, until the account may be read anew.
      if (outcome.kind === 'known' || this.#told.has(outcome)) return;
      this.#told.add(outcome);
      this.#onUnreadable(account, outcome);
    });
  }
}
