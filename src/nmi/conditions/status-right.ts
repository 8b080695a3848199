/**
 * Whether this process may write the status of a kind at all. A 403 may concern one object, which a
 * policy or a webhook refuses, or all of them, without the right: a review by the server
 * after a refusal decides. Every user may create a SelfSubjectAccessReview.
 */
import type { Clock } from '../../base/time/clock.ts';
import { asRecord } from '../../base/json-value.ts';
import type { KubeClient, RequestOptions } from '../kube/api/client.ts';
import { KubeError } from '../kube/api/kube-error.ts';
import type { ObservedKind } from './observed-objects.ts';
import { group, kinds } from './status-support.ts';

const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
/** An answer is valid for further refusals in this time. */
const allowedForMs = 60_000;
const pauseMs = 600_000;

export class StatusRight {
  readonly #client: Pick<KubeClient, 'postJson'>;
  readonly #clock: Clock;
  readonly #allowedUntilMs = new Map<ObservedKind, number>();
  readonly #pausedUntilMs = new Map<ObservedKind, number>();

  constructor(client: Pick<KubeClient, 'postJson'>, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
  }

  /** As far as is known. */
  has(kind: ObservedKind): boolean {
    return !this.#pausedUntilMs.has(kind);
  }

  /** After a write was refused. Rejects with the error of the call if the server does not answer. */
  async check(kind: ObservedKind, call: RequestOptions): Promise<void> {
    if (this.#clock.monotonicMs() < (this.#allowedUntilMs.get(kind) ?? 0)) return;
    const isAllowed = await this.#ask(kind, call);
    const nowMs = this.#clock.monotonicMs();
    if (isAllowed) this.#allowedUntilMs.set(kind, nowMs + allowedForMs);
    else this.#pausedUntilMs.set(kind, nowMs + pauseMs);
  }

  /** Kinds whose pause has ended since the last call. */
  takeDue(nowMs: number): readonly ObservedKind[] {
    const due = [...this.#pausedUntilMs].filter(([, untilMs]) => nowMs >= untilMs);
    for (const [kind] of due) this.#pausedUntilMs.delete(kind);
    return due.map(([kind]) => kind);
  }

  async #ask(kind: ObservedKind, call: RequestOptions): Promise<boolean> {
    const resourceAttributes = {
      group,
      resource: kinds[kind].plural,
      subresource: 'status',
      verb: 'patch',
    };
    const review = {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes },
    };
    try {
      const answer = asRecord(await this.#client.postJson(path, review, call));
      return asRecord(answer?.['status'])?.['allowed'] === true;
    } catch (error) {
      // A user who may not even ask is not expected to have the right.
      if (error instanceof KubeError && error.code === 'FORBIDDEN') return false;
      throw error;
    }
  }
}
