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
   * When a binding, an identity's object and a grant last said what they say; infinite while they do. An agent watches
   * the kinds apart, and may see one of them late: a right that never was at one moment is put together from two.
   */
  readonly #until = new Map<string, number>();
  /** When it began to say so without a break; of what all agents found at their start, -Infinity. */
  readonly #since = new Map<string, number>();

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
    const current = new Set(this.#statements());
    for (const [statement, untilMs] of this.#until) {
      if (untilMs === Infinity && !current.has(statement)) this.#until.set(statement, nowMs);
    }
    for (const statement of current) {
      if (this.#until.get(statement) !== Infinity) this.#since.set(statement, nowMs);
      this.#until.set(statement, Infinity);
    }
  }

  /** What is written so far was there before every agent. */
  begin(): void {
    for (const statement of this.#since.keys()) this.#since.set(statement, -Infinity);
  }

  /** Since when the pod's binding names an identity that is granted to its namespace; undefined if it does not now. */
  grantedSinceMs({ namespace, label }: PodFacts): number | undefined {
    const statements = [...this.#statements()];
    const bound = `binding ${namespace}/${label} `;
    const bindings = statements.filter((each) => each.startsWith(bound));
    const begins = bindings.flatMap((binding) => {
      const named = `identity ${namespace}/${binding.slice(bound.length)} `;
      return statements
        .filter((each) => each.startsWith(named))
        .map((identity) => [
          binding,
          identity,
          `grant ${namespace} ${identity.slice(named.length)}`,
        ]);
    });
    if (begins.length === 0 || !begins.every((all) => statements.includes(all.at(-1) ?? ''))) {
      return undefined;
    }
    return Math.max(...begins.flat().map((each) => this.#since.get(each) ?? Infinity));
  }

  /** When all that a right of a pod is made of last was there; infinite if it is, undefined if a part never was. */
  lastMs({ namespace, label }: PodFacts, identity: string): number | undefined {
    const bound = `binding ${namespace}/${label} `;
    const ends = [...this.#until].flatMap(([statement, boundMs]) => {
      if (!statement.startsWith(bound)) return [];
      const object = statement.slice(bound.length);
      const namedMs = this.#until.get(`identity ${namespace}/${object} ${identity}`);
      const ownedMs = this.#until.get(`grant ${namespace} ${identity}`);
      return namedMs === undefined || ownedMs === undefined
        ? []
        : [Math.min(boundMs, namedMs, ownedMs)];
    });
    return ends.length === 0 ? undefined : Math.max(...ends);
  }

  *#statements(): Iterable<string> {
    for (const { namespace, selector, identity } of this.bindings.values()) {
      yield `binding ${namespace}/${selector} ${identity}`;
    }
    for (const [object, name] of this.identities) yield `identity ${object} ${name}`;
    for (const { namespace, names } of this.grants.values()) {
      for (const name of names) yield `grant ${namespace} ${name}`;
    }
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
