/**
 * Keeps the kernel told which pods may go straight to the real service: those that an exception
 * covers, by the cgroup that the kubelet gave each.
 *
 * 1. A pod that is no longer excepted is stopped in the same step that learns it.
 * 2. Nothing is told before the watches are synced: until then holds what an earlier process told.
 * 3. A pod is known before its cgroup is there. It is looked for again, and relayed meanwhile.
 */
import type { Clock } from '../../cache/clock.ts';
import type { GrantIndex } from '../../cache/index/grant-index.ts';
import type { Pod } from '../../cache/index/objects.ts';
import type { PodIndex } from '../../cache/index/pod-index.ts';
import type { StraightOutcome } from '../../redirect/ebpf/ebpf.ts';
import type { Log } from '../base/log.ts';

export interface StraightPodsOptions {
  readonly pods: Pick<PodIndex, 'all'>;
  readonly grants: Pick<GrantIndex, 'grantsOf' | 'onChange'>;
  /** Resolves when everything is known; rejects when that will never be. */
  readonly whenSynced: () => Promise<unknown>;
  /** The id of a pod's cgroup, by the UID that the kubelet calls it by; undefined without one. */
  readonly cgroupOf: (cgroupUid: string) => bigint | undefined;
  readonly letStraight: (cgroupIds: readonly bigint[]) => Promise<StraightOutcome>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Also after a failure. */
const againMs = 500;

export class StraightPods implements Disposable {
  readonly #options: StraightPodsOptions;
  readonly #unsubscribe: () => void;
  /** By the pod's uid; ids are never used again, so one that was found stays true. */
  #cgroups = new Map<string, bigint>();
  /** What the kernel was told; undefined when it has to be told anew. */
  #told: ReadonlySet<bigint> | undefined;
  #isSynced = false;
  #isDisposed = false;
  #disarm: (() => void) | undefined;
  #lastSaid = '';

  constructor(options: StraightPodsOptions) {
    this.#options = options;
    this.#unsubscribe = options.grants.onChange(() => {
      this.#look();
    });
    options.whenSynced().then(
      () => {
        this.#isSynced = true;
        this.#look();
      },
      // Disposed before: what was told before stays.
      () => undefined,
    );
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#unsubscribe();
    this.#disarm?.();
  }

  #look(): void {
    if (!this.#isSynced || this.#isDisposed) return;
    const excepted = this.#excepted();
    const cgroups = new Map<string, bigint>();
    for (const pod of excepted) {
      const id = this.#cgroups.get(pod.uid) ?? this.#options.cgroupOf(pod.cgroupUid);
      if (id !== undefined) cgroups.set(pod.uid, id);
    }
    this.#cgroups = cgroups;
    if (cgroups.size < excepted.length) this.#lookAgain();
    const wanted = new Set(cgroups.values());
    if (this.#told !== undefined && isSame(wanted, this.#told)) return;
    this.#told = wanted;
    void this.#tell(wanted);
  }

  #excepted(): readonly Pod[] {
    const { pods, grants } = this.#options;
    return [...pods.all()].filter(
      ({ uid, phase }) =>
        phase !== 'Succeeded' && phase !== 'Failed' && grants.grantsOf(uid)?.kind === 'exception',
    );
  }

  async #tell(wanted: ReadonlySet<bigint>): Promise<void> {
    try {
      const outcome = await this.#options.letStraight([...wanted]);
      if (outcome.kind === 'straight') this.#say('info', 'straight', { pods: wanted.size });
      else this.#say('warn', 'relayed', { why: outcome.why });
    } catch (error) {
      const problem = error instanceof Error ? error.message : 'unknown error';
      this.#say('error', 'unknown', { problem });
      this.#told = undefined;
      this.#lookAgain();
    }
  }

  #say(
    level: 'info' | 'warn' | 'error',
    kind: keyof typeof sentences,
    fields: Readonly<Record<string, string | number>>,
  ): void {
    const said = JSON.stringify([kind, fields]);
    if (said === this.#lastSaid) return;
    this.#lastSaid = said;
    this.#options.log[level](fields, sentences[kind]);
  }

  #lookAgain(): void {
    this.#disarm ??= this.#options.clock.schedule(againMs, () => {
      this.#disarm = undefined;
      this.#look();
    });
  }
}

const sentences = {
  straight: 'excepted pods go straight to the metadata service',
  relayed: 'excepted pods are relayed, they cannot go straight here',
  unknown: 'the kernel was not told which pods go straight, trying again',
} as const;

function isSame(one: ReadonlySet<bigint>, other: ReadonlySet<bigint>): boolean {
  return one.size === other.size && one.isSubsetOf(other);
}
