/** Short faults of everything that the agent depends on. */
import { setTimeout as delay } from 'node:timers/promises';
import type { EntraFaults, FakeEntra } from '../../../lab/fakes/entra/fake-entra.ts';
import type { FakeImds, ImdsFaults } from '../../../lab/fakes/imds/fake-imds.ts';
import type { FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import type { Chance } from '../../simulation/chance.ts';

/** The pause between two faults, and the duration of one. */
const pauseMs = [200, 2_400] as const;
const lastsMs = [50, 1_500] as const;

/** Latency without a fault: permissions end while fetches are in flight. */
const usual = { delayMs: 150 };

/** Tokens with less than five minutes are renewed at half of their lifetime. */
const lifetimesMs = [2_500, 2_500, 3_500, 3_500, 240_000, 3_600_000] as const;

const imdsFaults = {
  slow: { delayMs: 700 },
  throttling: { fail: { status: 429, retryAfterSec: 1 } },
  throttlingOnce: { delayMs: 60, fail: { status: 429, times: 1 } },
  failing: { delayMs: 20, fail: { status: 500 } },
  updating: { fail: { status: 404 } },
  gone: { fail: { status: 410, times: 3 } },
  unavailable: { delayMs: 100, fail: { status: 503, retryAfterSec: 1 } },
  hanging: { hang: true, paths: 'token' },
  closed: { closed: true },
} as const satisfies Record<string, ImdsFaults>;

const entraFaults = {
  slow: { delayMs: 700 },
  throttling: { fail: { status: 429, retryAfterSec: 1 } },
  failing: { delayMs: 60, fail: { status: 500 } },
  unavailable: { fail: { status: 503, retryAfterSec: 1 } },
  hanging: { hang: true },
  resetting: { delayMs: 30, reset: true },
  refusing: { refuse: { code: 7_000_215, times: 3 } },
} as const satisfies Record<string, EntraFaults>;

type KubeFault = (kube: FakeKube) => void;

const kubeFaults = {
  cut: (kube) => kube.cutConnections(),
  closed: (kube) => kube.closeWatches(),
  expired: (kube) => {
    kube.compact();
    kube.cutConnections();
  },
  expiredByStatus: (kube) => {
    kube.faults.goneByStatus = true;
    kube.compact();
    kube.closeWatches();
  },
  hanging: (kube) => {
    kube.faults.hang = true;
    kube.cutConnections();
  },
  failing: (kube) => {
    kube.faults.failNext(5, 500);
    kube.cutConnections();
  },
  throttling: (kube) => {
    kube.faults.failNext(3, 429, { retryAfterSec: 1 });
    kube.cutConnections();
  },
  late: (kube) => {
    kube.faults.delayEventsMs = 150;
  },
  halfAnEvent: (kube) => {
    kube.faults.cutNextWatchAfterBytes = 100;
    kube.closeWatches();
  },
  garbage: (kube) => kube.injectIntoWatches('{"type":"BROKEN"\n'),
} as const satisfies Record<string, KubeFault>;

export interface FaultsOptions {
  readonly imds: FakeImds;
  readonly entra: FakeEntra;
  readonly kube: FakeKube;
  readonly isOver: () => boolean;
  readonly onFault: (name: string) => void;
}

export class Faults {
  readonly #options: FaultsOptions;
  /** Since when the API server has had no fault; Infinity during a fault. */
  #kubeHealthySinceMs = 0;

  constructor(options: FaultsOptions) {
    this.#options = options;
  }

  get kubeHealthySinceMs(): number {
    return this.#kubeHealthySinceMs;
  }

  /** One fault at a time at each of the three, and changing lifetimes of tokens. */
  async run(chances: Readonly<Record<'imds' | 'entra' | 'kube' | 'lives', Chance>>): Promise<void> {
    const { imds, entra } = this.#options;
    await Promise.all([
      this.#repeat('imds', chances.imds, imdsFaults, (fault) => imds.setFaults(fault ?? usual)),
      this.#repeat('entra', chances.entra, entraFaults, (fault) => {
        entra.setFaults(fault ?? usual);
      }),
      this.#repeat('kube', chances.kube, kubeFaults, (fault) => this.#setKube(fault)),
      this.#changeLives(chances.lives),
    ]);
  }

  async #repeat<F>(
    where: string,
    chance: Chance,
    faults: Readonly<Record<string, F>>,
    set: (fault: F | undefined) => void | Promise<void>,
  ): Promise<void> {
    const { isOver, onFault } = this.#options;
    await set(undefined);
    while (!isOver()) {
      await delay(chance.between(...pauseMs));
      const [name, fault] = chance.pick(Object.entries(faults));
      onFault(`${where} ${name}`);
      await set(fault);
      await delay(chance.between(...lastsMs));
      await set(undefined);
    }
  }

  #setKube(fault: KubeFault | undefined): void {
    const { kube } = this.#options;
    if (fault !== undefined) {
      this.#kubeHealthySinceMs = Infinity;
      fault(kube);
      return;
    }
    const wasHanging = kube.faults.hang;
    kube.faults.clear();
    // Hanging requests continue to hang.
    if (wasHanging) kube.cutConnections();
    this.#kubeHealthySinceMs = performance.now();
  }

  async #changeLives(chance: Chance): Promise<void> {
    const { imds, entra, isOver } = this.#options;
    while (!isOver()) {
      imds.setTokenLifetime(chance.pick(lifetimesMs));
      entra.setTokenLifetime(chance.pick(lifetimesMs));
      await delay(chance.between(500, 3_000));
    }
    imds.setTokenLifetime(3_600_000);
    entra.setTokenLifetime(3_600_000);
  }
}
