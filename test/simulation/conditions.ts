/** The Deployment that writes conditions: one process, two during an update, and what they write. */
import { isDeepStrictEqual } from 'node:util';
import type { FakeObject } from '../../lab/fakes/kube/resources.ts';
import { Machine, type Process } from './machine.ts';
import { clockOf } from './clock.ts';
import type { World } from './world.ts';

/** One after each change of something else, one that a conflict or a change in the midst of it repeats, and the other's. */
const mostWrites = 3;

export class Conditions {
  readonly #world: World;
  readonly #machine: Machine;
  readonly #running = new Set<Process>();
  #started = 0;
  /** By object: writes of its status since anything else has changed. */
  readonly #writes = new Map<string, number>();

  constructor(world: World) {
    this.#world = world;
    this.#machine = new Machine(world.scheduler, world.network.paceMs);
    world.network.place('10.0.0.30', this.#machine);
    world.cloud.kube.store.subscribe(({ previous, current }) => this.#note(previous, current));
  }

  /** Somebody else has written, perhaps an object without a status. */
  othersWrote(): void {
    this.#writes.clear();
  }

  start(): void {
    const { world, name } = { world: this.#world, name: `conditions${(this.#started += 1)}` };
    this.#writes.clear();
    const { code, kubeconfig } = world.loaded;
    const process = world.start(name, this.#machine, async () => {
      const parsed = code.parseConfig(
        {
          node: name,
          kubeconfig,
          'identity-owners': 'enforce',
          'http-probe-port': '0',
          'prometheus-port': '0',
        },
        {},
      );
      if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems));
      const log = world.logOf(name);
      const { config } = parsed;
      await code.startConditions({ config, clock: clockOf(process), log, environment: {} });
      return new Promise<number>(() => undefined);
    });
    this.#running.add(process);
    void process.exited.then(() => this.#running.delete(process));
  }

  /** A second one runs for some time; then the first one ends. */
  update(forMs: number): void {
    const old = [...this.#running];
    this.start();
    this.#world.after(forMs, 'conditions updated', () => {
      for (const each of old) each.end();
    });
  }

  #note(previous: FakeObject | undefined, current: FakeObject | undefined): void {
    if (
      current === undefined ||
      previous === undefined ||
      !isDeepStrictEqual(restOf(previous), restOf(current))
    ) {
      this.#writes.clear();
      return;
    }
    const key = `${current.kind} ${current.metadata.namespace ?? ''}/${current.metadata.name}`;
    const count = (this.#writes.get(key) ?? 0) + 1;
    this.#writes.set(key, count);
    if (count > mostWrites) {
      this.#world.break(
        `the status of ${key} is written ${count} times, though nothing else changed`,
      );
    }
  }
}

function restOf(object: FakeObject): object {
  const {
    status: _status,
    metadata,
    ...rest
  } = object as FakeObject & { readonly status?: unknown };
  const { resourceVersion: _version, ...named } = metadata as FakeObject['metadata'] & {
    readonly resourceVersion?: string;
  };
  return { ...rest, named };
}
