/**
 * Who has a right to which identity, from the objects as they were written, by rules of a few lines that
 * share nothing with the agent: a pod's label, a binding and an identity of its namespace, and a grant; or an exception
 * for its label, and a grant of the node's identities.
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
  /** By namespace and label, with a blank between. */
  readonly exceptions = new Map<string, true>();
  /**
   * When a pod's label, a binding, an identity's object and a grant last said what they say; infinite while they do. An agent watches
   * the kinds apart, and may see one of them late: a right that never was at one moment is put together from two.
   */
  readonly #until = new Map<string, number>();
  /** When it began to say so without a break; of what all agents found at their start, -Infinity. */
  readonly #since = new Map<string, number>();

  readonly #labelled = new Set<string>();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** The identities that a pod has a right to now. */
  of(uid: string): ReadonlySet<string> {
    const pod = this.pods.get(uid);
    if (pod === undefined) return new Set();
    const { namespace, label } = pod;
    if (!this.exceptions.has(`${namespace} ${label}`)) {
      return new Set(this.#current(namespace, label));
    }
    return new Set(this.#isOwned(namespace, 'node') ? ['node'] : []);
  }

  /** @returns what brings the objects back. */
  backUp(): () => void {
    const { pods, bindings, identities, grants, exceptions } = this;
    const all: Map<string, unknown>[] = [pods, bindings, identities, grants, exceptions];
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
      // The first label of a pod is as old as the pod.
      const [kind, uid = ''] = statement.split(' ', 2);
      if (kind === 'pod' && !this.#labelled.has(uid)) this.#since.set(statement, -Infinity);
      if (kind === 'pod') this.#labelled.add(uid);
      this.#until.set(statement, Infinity);
    }
  }

  /** What is written so far was there before every agent. */
  begin(): void {
    for (const statement of this.#since.keys()) this.#since.set(statement, -Infinity);
  }

  /** Since when the pod's binding names an identity that is granted to its namespace; undefined if it does not now. */
  grantedSinceMs({ uid, namespace }: PodFacts): number | undefined {
    const { label = '' } = this.pods.get(uid) ?? {};
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
    const all = [`pod ${uid} ${label}`, ...begins.flat()];
    return Math.max(...all.map((each) => this.#since.get(each) ?? Infinity));
  }

  /** When all that a right of a pod is made of last was there; infinite if it is, undefined if a part never was. */
  lastMs({ uid, namespace }: PodFacts, identity: string): number | undefined {
    const owned = `grant ${namespace} ${identity}`;
    const ends = this.#startingWith(`pod ${uid} `).flatMap(([label, labelledMs]) => [
      this.#min(labelledMs, `exception ${namespace} ${label}`, `grant ${namespace} node`),
      ...this.#startingWith(`binding ${namespace}/${label} `).map(([object, boundMs]) =>
        this.#min(
          Math.min(labelledMs, boundMs),
          `identity ${namespace}/${object} ${identity}`,
          owned,
        ),
      ),
    ]);
    const latestMs = Math.max(...ends);
    return latestMs === -Infinity ? undefined : latestMs;
  }

  /** When it last had a label that is excepted; infinite if it has, -Infinity if it never had. */
  exceptedMs({ uid, namespace }: PodFacts): number {
    const labels = this.#startingWith(`pod ${uid} `);
    return Math.max(
      ...labels.map(([label, ms]) => this.#min(ms, `exception ${namespace} ${label}`)),
    );
  }

  /** What follows the beginning of a statement, and until when it was said. */
  #startingWith(beginning: string): readonly (readonly [string, number])[] {
    return [...this.#until]
      .filter(([statement]) => statement.startsWith(beginning))
      .map(([statement, untilMs]) => [statement.slice(beginning.length), untilMs]);
  }

  /** Until when all of it was said; -Infinity if one never was. */
  #min(untilMs: number, ...statements: readonly string[]): number {
    return Math.min(untilMs, ...statements.map((each) => this.#until.get(each) ?? -Infinity));
  }

  *#statements(): Iterable<string> {
    for (const { uid, label } of this.pods.values()) yield `pod ${uid} ${label}`;
    for (const each of this.exceptions.keys()) yield `exception ${each}`;
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
