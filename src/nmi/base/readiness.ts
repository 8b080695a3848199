/**
 * What must hold for this node to be served, each condition by name. The answer of `/readyz` says
 * what is missing and why.
 */
export interface Condition {
  readonly name: string;
  /** Why it does not hold, or undefined when it does. */
  readonly problem: () => string | undefined;
}

export interface Readiness {
  readonly ready: boolean;
  readonly missing: Readonly<Record<string, string>>;
}

export function readiness(conditions: readonly Condition[]): Readiness {
  const missing: Record<string, string> = {};
  for (const condition of conditions) {
    const problem = condition.problem();
    if (problem !== undefined) missing[condition.name] = problem;
  }
  return { ready: Object.keys(missing).length === 0, missing };
}
