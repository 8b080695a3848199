/**
 * Which kinds accept conditions. The definitions of aad-pod-identity have no status subresource,
 * and those of our first releases drop the conditions of a status: such objects are not changed,
 * the log names the remedy once, and a later check finds definitions that were applied since.
 */
import { asRecord, stringAt } from '../../base/json-value.ts';
import type { Log } from '../../base/log.ts';
import type { ObservedKind } from './observed-objects.ts';

export const group = 'aadpodidentity.k8s.io';
export const groupPath = `/apis/${group}/v1`;

export const kinds = {
  identity: { title: 'AzureIdentity', plural: 'azureidentities' },
  binding: { title: 'AzureIdentityBinding', plural: 'azureidentitybindings' },
} as const satisfies Record<ObservedKind, object>;

export class StatusSupport {
  readonly #log: Log;
  readonly #supported = new Set<ObservedKind>();
  readonly #logged = new Set<ObservedKind>();

  constructor(log: Log) {
    this.#log = log;
  }

  has(kind: ObservedKind): boolean {
    return this.#supported.has(kind);
  }

  /**
   * @param list the answer of `groupPath`.
   * @returns kinds that accept conditions now and did not before.
   */
  learn(list: unknown): readonly ObservedKind[] {
    const resources: unknown = asRecord(list)?.['resources'];
    const entries: readonly unknown[] = Array.isArray(resources) ? resources : [];
    const names = new Set(entries.map((entry) => stringAt(asRecord(entry), 'name')));
    const found: ObservedKind[] = [];
    for (const kind of ['identity', 'binding'] as const) {
      if (!names.has(`${kinds[kind].plural}/status`)) this.refuse(kind);
      else if (!this.#supported.has(kind)) found.push(kind);
    }
    for (const kind of found) this.#supported.add(kind);
    return found;
  }

  /** The server did not keep the conditions of a status. */
  refuse(kind: ObservedKind): void {
    this.#supported.delete(kind);
    if (this.#logged.has(kind)) return;
    this.#logged.add(kind);
    this.#log.warn(
      { kind: kinds[kind].title },
      'custom resource definition has no status conditions, apply deploy/crds.yaml',
    );
  }
}
