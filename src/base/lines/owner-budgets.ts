/**
 * Budgets of log lines by the pod that causes them: a pod that causes ever new kinds of lines uses
 * up its own budget, and the lines of the others are written as before.
 */
import type { Clock } from '../time/clock.ts';
import { LogBudget, type ReportOmitted } from './log-budget.ts';

/** Per owner. A pod has a handful of identities, and refusals have some 40 reasons. */
const maxKinds = 64;
/** A node has 250 pods at most. Further owners share one budget. */
const maxOwners = 512;
const others = 'others';

export interface OwnerBudgetsOptions {
  readonly clock: Clock;
  /** Per owner, like the option of `LogBudget`. */
  readonly maxLines?: number;
  /** Called once a minute with an owner's lines of further kinds. */
  readonly onOthers: (owner: string, ...omitted: Parameters<ReportOmitted>) => void;
}

export class OwnerBudgets {
  readonly #options: OwnerBudgetsOptions;
  readonly #budgets = new Map<string, LogBudget>();

  constructor(options: OwnerBudgetsOptions) {
    this.#options = options;
  }

  of(owner: string): LogBudget {
    return this.#budgets.get(owner) ?? this.#open(owner);
  }

  #open(owner: string): LogBudget {
    const budgets = this.#budgets;
    if (budgets.size >= maxOwners) {
      for (const [name, each] of budgets) if (each.isIdle) budgets.delete(name);
    }
    const name = budgets.size >= maxOwners ? others : owner;
    const known = budgets.get(name);
    if (known !== undefined) return known;
    const onOthers: ReportOmitted = (...omitted) => this.#options.onOthers(name, ...omitted);
    const budget = new LogBudget({ ...this.#options, maxKinds, onOthers });
    budgets.set(name, budget);
    return budget;
  }
}
