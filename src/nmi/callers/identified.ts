/** Who a caller is, or why that is not known. */
import type { Pod } from '../../cache/index/objects.ts';
import type { DescribedReason } from '../base/answers.ts';

/** The facts in the text of a refusal, for a caller that is no known pod. */
export type CallerFacts =
  | { readonly about: 'unattested'; readonly refusedBy?: 'shared-link' | 'option' }
  | { readonly about: 'outlived' | 'unknown-name' }
  | { readonly about: 'unavailable'; readonly why: string }
  | {
      readonly about: 'shared-address' | 'misplaced-address' | 'other-cgroup';
      readonly ip: string;
    }
  /** `why`: the problem of the watches, if any. */
  | { readonly about: 'agent-starting'; readonly why?: string }
  | {
      readonly about: 'stale' | 'unknown-address';
      readonly ip: string;
      readonly why?: string;
    };

export interface RefusedWith<F, P> {
  readonly kind: 'refused';
  readonly reason: DescribedReason;
  readonly facts: F;
  /** A watch event may change it, so the request waits for a moment. */
  readonly isPending: boolean;
  readonly pod: P;
}

export type RefusedCaller = RefusedWith<CallerFacts, undefined>;
export type Identified = { readonly kind: 'pod'; readonly pod: Pod } | RefusedCaller;
