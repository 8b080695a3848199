/** Heap snapshots as V8 writes them: the strings in one, and what keeps each of them alive. */
import { readFileSync } from 'node:fs';

interface Raw {
  readonly snapshot: {
    readonly meta: {
      readonly node_fields: readonly string[];
      readonly node_types: readonly (readonly string[])[];
      readonly edge_fields: readonly string[];
      readonly edge_types: readonly (readonly string[])[];
    };
  };
  readonly nodes: readonly number[];
  readonly edges: readonly number[];
  readonly strings: readonly string[];
}

interface Edge {
  readonly from: number;
  readonly to: number;
  readonly type: string;
  readonly label: string;
}

const maxTextLength = 4 * 1024 * 1024;
const maxSteps = 40;

export class HeapSnapshot {
  readonly #raw: Raw;
  readonly #nodeSize: number;
  /** Index of the first edge of each node; one more at the end. */
  readonly #firstEdges = [0];
  #paths: ReadonlyMap<number, Edge> | undefined;

  constructor(path: string) {
    this.#raw = JSON.parse(readFileSync(path, 'utf8')) as Raw;
    const { nodes, snapshot } = this.#raw;
    const fields = snapshot.meta.node_fields;
    this.#nodeSize = fields.length;
    let edges = 0;
    for (let at = fields.indexOf('edge_count'); at < nodes.length; at += this.#nodeSize) {
      this.#firstEdges.push((edges += nodes[at] ?? 0));
    }
  }

  /**
   * The matches of `look` in all text of the heap: strings, including those that V8 keeps in
   * pieces, and names of properties and functions. Each match comes with one place where it was
   * found.
   */
  find(look: (text: string) => readonly string[]): ReadonlyMap<string, string> {
    const { nodes, strings } = this.#raw;
    const named = strings.map(look);
    const found = new Map(named.flat().map((name) => [name, 'the name of a property']));
    const places = new Map<string, number>();
    for (let node = 0; node < this.#firstEdges.length - 1; node++) {
      const isJoined = this.#typeOf(node) === 'concatenated string';
      const names = isJoined
        ? look(this.#join(node))
        : named[nodes[node * this.#nodeSize + 1] ?? 0];
      for (const name of names ?? []) if (!places.has(name)) places.set(name, node);
    }
    for (const [name, node] of places) found.set(name, this.#pathTo(node));
    return found;
  }

  /** From a root of the heap to the node, as one line. */
  #pathTo(node: number): string {
    const from = (this.#paths ??= this.#findPaths());
    const steps: string[] = [];
    for (let at = node; at !== 0 && steps.length < maxSteps;) {
      const edge = from.get(at);
      if (edge === undefined) break;
      steps.push(`${edge.label} → ${this.#typeOf(at)} ${this.#nameOf(at).slice(0, 40)}`);
      at = edge.from;
    }
    return steps.reverse().join(' . ');
  }

  /** The edge that first reaches each node, breadth first, without weak edges. */
  #findPaths(): ReadonlyMap<number, Edge> {
    const from = new Map<number, Edge>();
    const queue = [0];
    for (let next = 0; next < queue.length; next++) {
      for (const edge of this.#edgesOf(queue[next] ?? 0)) {
        if (edge.type === 'weak' || edge.to === 0 || from.has(edge.to)) continue;
        from.set(edge.to, edge);
        queue.push(edge.to);
      }
    }
    return from;
  }

  *#edgesOf(node: number): Generator<Edge> {
    const { edges, strings, snapshot } = this.#raw;
    const types = snapshot.meta.edge_types[0] ?? [];
    const end = this.#firstEdges[node + 1] ?? 0;
    for (let edge = this.#firstEdges[node] ?? 0; edge < end; edge++) {
      const at = edge * snapshot.meta.edge_fields.length;
      const type = types[edges[at] ?? 0] ?? '';
      const nameOrIndex = edges[at + 1] ?? 0;
      const isIndex = type === 'element' || type === 'hidden';
      const label = isIndex ? String(nameOrIndex) : (strings[nameOrIndex] ?? '');
      yield { from: node, to: (edges[at + 2] ?? 0) / this.#nodeSize, type, label };
    }
  }

  #typeOf(node: number): string {
    const { snapshot, nodes } = this.#raw;
    return snapshot.meta.node_types[0]?.[nodes[node * this.#nodeSize] ?? 0] ?? '';
  }

  #nameOf(node: number): string {
    return this.#raw.strings[this.#raw.nodes[node * this.#nodeSize + 1] ?? 0] ?? '';
  }

  #join(node: number): string {
    let text = '';
    const pending = [node];
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      const type = this.#typeOf(at);
      if (text.length > maxTextLength) break;
      if (type === 'concatenated string') {
        const parts = [...this.#edgesOf(at)];
        for (const half of ['second', 'first']) {
          pending.push(...parts.filter(({ label }) => label === half).map(({ to }) => to));
        }
      } else if (type !== 'sliced string') {
        text += this.#nameOf(at);
      }
    }
    return text;
  }
}
