/**
 * What a run has skipped. With CI=true only what this list has: a run that is green there has run everything else.
 * Each row is a capability of the machine that a probe looks for, never a program that `./dev` or a build brings.
 */
import type { TestEvent } from 'node:test/reporters';

interface MissingCapability {
  /** Of the reason that the probe gives. */
  readonly reason: RegExp;
  readonly why: string;
}

const missingCapabilities: readonly MissingCapability[] = [
  {
    reason: /^its definition is made by a running Gatekeeper$/,
    why: 'a constraint is an object of a definition that only Gatekeeper can make, which the tests do not run',
  },
  {
    reason: /^its definition is not at hand$/,
    why: "Cilium's definitions are in no module that the tests build",
  },
  {
    reason: /^this kernel has no (?:tables of legacy iptables|MPTCP)$/,
    why: 'newer kernels may have neither; the kernels of Debian that `--long` starts have both',
  },
  {
    reason: /^runsc is not installed$/,
    why: 'gVisor is no package of Debian; the long run builds it, for pods on a node',
  },
];

/** Without a reason a skip is as good as none. */
const noReason = 'without a reason';

export class Skips {
  /** Number of tests, or suites of which no test was made, by reason. */
  readonly #counts = new Map<string, number>();
  readonly #allowed: readonly MissingCapability[];

  constructor(allowed: readonly MissingCapability[] = missingCapabilities) {
    this.#allowed = allowed;
  }

  add({ type, data }: TestEvent): void {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.skip === undefined) return;
    const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : noReason;
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1);
  }

  /** Reasons that the list does not have. */
  unlisted(): readonly string[] {
    return [...this.#counts.keys()].filter(
      (reason) => !this.#allowed.some((each) => each.reason.test(reason)),
    );
  }

  /** One line. */
  summary(): string {
    const all = [...this.#counts].map(([reason, count]) => `${count} × ${reason}`);
    return all.length === 0 ? 'nothing was skipped' : `SKIPPED: ${all.join('; ')}`;
  }
}
