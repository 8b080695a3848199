/**
 * Who has a right to which identity, from the objects as they were written, by rules of a few lines that
 * share nothing with the agent: a pod's label, a binding and an identity of its namespace, and a grant.
 */
export interface PodFacts {
  readonly uid: string;
  readonly namespace: string;
  readonly label: string;
}

interface BindingFacts {
  readonly namespace: string;
  readonly selector: string;
  readonly identity: string;
}

export class Truth {
  readonly #nowMs: () => number;
  readonly pods = new Map<string, PodFacts>();
  /** By namespace and name. */
  readonly bindings = new Map<string, BindingFacts>();
  /** By namespace and name: the lab's name of the identity. */
  readonly identities = new Map<string, string>();
  /** By name: which namespace may use which identities. */
  readonly grants = new Map<
    string,
    { readonly namespace: string; readonly names: readonly string[] }
  >();
  /**
   * When a pod of a namespace with a label last had a right, or would have had it; infinite while it has.
   * A pod that is created just after the end of a right may still get a token for a moment.
   */
  readonly #until = new Map<string, number>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** The identities that a pod has a right to now. */
  of(uid: string): ReadonlySet<string> {
    const pod = this.pods.get(uid);
    return new Set(pod === undefined ? [] : this.#current(pod.namespace, pod.label));
  }

  /** @returns what brings the objects back. */
  backUp(): () => void {
    const all: Map<string, unknown>[] = [this.pods, this.bindings, this.identities, this.grants];
    const saved = all.map((each) => new Map(each));
    return () => {
      for (const [index, each] of all.entries()) {
        each.clear();
        for (const [key, value] of saved[index] ?? []) each.set(key, value);
      }
    };
  }

  /** After each change. */
  note(): void {
    const nowMs = this.#nowMs();
    const current = new Set<string>();
    for (const { namespace, selector } of this.bindings.values()) {
      for (const name of this.#current(namespace, selector)) {
        current.add(`${namespace}/${selector} ${name}`);
      }
    }
    for (const [key, untilMs] of this.#until) {
      if (untilMs === Infinity && !current.has(key)) this.#until.set(key, nowMs);
    }
    for (const key of current) this.#until.set(key, Infinity);
  }

  /** When a pod last had the right; infinite if it has it, undefined if it never had it. */
  lastMs({ namespace, label }: PodFacts, identity: string): number | undefined {
    return this.#until.get(`${namespace}/${label} ${identity}`);
  }

  *#current(namespace: string, label: string): Iterable<string> {
    for (const binding of this.bindings.values()) {
      if (binding.namespace !== namespace || binding.selector !== label) continue;
      const name = this.identities.get(`${namespace}/${binding.identity}`);
      if (name !== undefined && this.#isOwned(namespace, name)) yield name;
    }
  }

  #isOwned(namespace: string, name: string): boolean {
    for (const grant of this.grants.values()) {
      if (grant.namespace === namespace && grant.names.includes(name)) return true;
    }
    return false;
  }
}
