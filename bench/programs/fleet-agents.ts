/**
 * The watches of many nodes in one process, with nothing behind them: `node
 * bench/programs/fleet-agents.ts KUBECONFIG NODES`. Prints `ready` when all are synced, and
 * `seen NAME` when every node has seen the binding NAME, whose name begins with `marker-`.
 */
import type { ObjectRef, ObjectStore } from '../../src/cache/index/objects.ts';
import { openKubeClient } from '../../src/nmi/kube/api/client.ts';
import { openWatches } from '../../src/nmi/kube/watch/watches.ts';
import { fullName } from '../../src/cache/index/object-name.ts';

const [kubeconfigPath = '', nodesText = ''] = process.argv.slice(2);
const nodes = Number(nodesText);
const seenBy = new Map<string, Set<number>>();

/** Knows only names, as many agents share this process. */
class NameStore implements ObjectStore<ObjectRef> {
  readonly #node: number;
  #names = new Set<string>();

  constructor(node: number) {
    this.#node = node;
  }

  get size(): number {
    return this.#names.size;
  }

  replace(items: readonly ObjectRef[]): void {
    this.#names = new Set();
    for (const item of items) this.upsert(item);
  }

  upsert(item: ObjectRef): void {
    this.#names.add(fullName(item));
    if (item.name.startsWith('marker-')) see(item.name, this.#node);
  }

  remove(ref: ObjectRef): void {
    this.#names.delete(fullName(ref));
  }
}

function see(name: string, node: number): void {
  const seen = seenBy.get(name) ?? new Set<number>();
  seenBy.set(name, seen);
  if (seen.has(node)) return;
  seen.add(node);
  if (seen.size === nodes) console.log(`seen ${name}`);
}

const ignore = (): undefined => undefined;
const log = { debug: ignore, info: ignore, warn: ignore, error: ignore };

async function open(index: number): Promise<void> {
  const client = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-fleet/1' });
  const store = new NameStore(index);
  const stores = {
    pods: new NameStore(index),
    identities: new NameStore(index),
    bindings: store,
    exceptions: new NameStore(index),
    grants: new NameStore(index),
  };
  await openWatches({ client, node: `node-${index}`, stores, log }).whenSynced();
}

// While no connection is open, nothing else keeps the process.
setInterval(ignore, 60_000);
await Promise.all(Array.from({ length: nodes }, (_, index) => open(index)));
console.log('ready');
