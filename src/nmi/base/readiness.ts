/**
 * Named conditions under which the agent serves this node. `/readyz` reports the unmet ones and
 * their problems.
 */
export interface Condition {
  readonly name: string;
  /** Why the condition is unmet, or undefined if it is met. */
  readonly problem: () => string | undefined;
}

export interface Readiness {
  readonly ready: boolean;
  readonly missing: Readonly<Record<string, string>>;
}

/** @param parts of the agent, each with its conditions. */
export function readiness(
  parts: readonly { readonly conditions?: readonly Condition[] }[],
): Readiness {
  const missing: Record<string, string> = {};
  for (const { name, problem } of parts.flatMap(({ conditions = [] }) => conditions)) {
    const text = problem();
    if (text !== undefined) missing[name] = text;
  }
  return { ready: Object.keys(missing).length === 0, missing };
}
