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
  readonly #edgeSize: number;
  /** Index of the first edge of each node; one more at the end. */
  readonly #firstEdges: readonly number[];
  #known: ReadonlyMap<number, Edge> | undefined;

  constructor(path: string) {
    this.#raw = JSON.parse(readFileSync(path, 'utf8')) as Raw;
    const { node_fields: nodeFields, edge_fields: edgeFields } = this.#raw.snapshot.meta;
    this.#nodeSize = nodeFields.length;
    this.#edgeSize = edgeFields.length;
    const edgeCountAt = nodeFields.indexOf('edge_count');
    const firstEdges = [0];
    let edges = 0;
    for (let at = edgeCountAt; at < this.#raw.nodes.length; at += this.#nodeSize) {
      edges += this.#raw.nodes[at] ?? 0;
      firstEdges.push(edges);
    }
    this.#firstEdges = firstEdges;
  }

  /**
   * The matches of `look` in all text of the heap: strings, including those that V8 keeps in
   * pieces, and names of properties and functions. Each match comes with one place where it was
   * found.
   */
  find(look: (text: string) => readonly string[]): ReadonlyMap<string, string> {
    const found = new Map<string, string>();
    const named = new Map<number, readonly string[]>();
    for (const [index, text] of this.#raw.strings.entries()) {
      const names = look(text);
      if (names.length > 0) named.set(index, names);
      for (const name of names) found.set(name, 'the name of a property');
    }
    const count = this.#firstEdges.length - 1;
    const places = new Map<string, number>();
    for (let node = 0; node < count; node++) {
      const isJoined = this.#typeOf(node) === 'concatenated string';
      const index = this.#raw.nodes[node * this.#nodeSize + 1] ?? 0;
      const names = isJoined ? look(this.#join(node)) : (named.get(index) ?? []);
      for (const name of names) if (!places.has(name)) places.set(name, node);
    }
    for (const [name, node] of places) found.set(name, this.#pathTo(node));
    return found;
  }

  /** From a root of the heap to the node, as one line. */
  #pathTo(node: number): string {
    const from = this.#paths();
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
  #paths(): ReadonlyMap<number, Edge> {
    if (this.#known !== undefined) return this.#known;
    const from = new Map<number, Edge>();
    const queue = [0];
    for (let next = 0; next < queue.length; next++) {
      for (const edge of this.#edgesOf(queue[next] ?? 0)) {
        if (edge.type === 'weak' || edge.to === 0 || from.has(edge.to)) continue;
        from.set(edge.to, edge);
        queue.push(edge.to);
      }
    }
    return (this.#known = from);
  }

  *#edgesOf(node: number): Generator<Edge> {
    const { edges, strings, snapshot } = this.#raw;
    const types = snapshot.meta.edge_types[0] ?? [];
    const end = this.#firstEdges[node + 1] ?? 0;
    for (let edge = this.#firstEdges[node] ?? 0; edge < end; edge++) {
      const at = edge * this.#edgeSize;
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
    while (pending.length > 0 && text.length < maxTextLength) {
      const at = pending.pop() ?? 0;
      if (this.#typeOf(at) !== 'concatenated string') {
        if (this.#typeOf(at) !== 'sliced string') text += this.#nameOf(at);
        continue;
      }
      let second = 0;
      for (const { label, to } of this.#edgesOf(at)) {
        if (label === 'second') second = to;
      }
      pending.push(second);
      for (const { label, to } of this.#edgesOf(at)) if (label === 'first') pending.push(to);
    }
    return text;
  }
}
