/**
 * The kernel side alone: installs the redirect, checks it at each interval, repairs drift.
 * For a node on which the process that serves pods has no kernel privileges.
 */
import { openAdminPages, waitingForPort } from './admin/pages.ts';
import { giveBackSpareMemory } from '../base/spare-memory.ts';
import { describeTarget, reachableTarget } from '../redirect/target.ts';
import { openKernel, type KernelOptions } from './kernel/kernel.ts';
import type { NodeRedirect } from './kernel/node-redirect.ts';
import {
  nodePodsPath,
  readNodePods,
  removeState,
  writeState,
  type MaintainedMode,
} from './kernel/redirect-state.ts';
import { watchShared } from './kernel/shared-file.ts';
import { exportParts } from './telemetry/export-parts.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { exportProcess } from './telemetry/process-metrics.ts';

/**
 * Runs until disposed; the redirect stays. Refusals of the kernel are logged and retried.
 * @throws StartError if one of its ports is in use.
 */
export async function startRedirectDaemon(
  options: Omit<KernelOptions, 'onStatus' | 'onWait'>,
): Promise<AsyncDisposable> {
  const { config, clock, log } = options;
  await using starting = new AsyncDisposableStack();
  const metrics = createMetrics({ oldNames: false });
  exportProcess(metrics);
  let report: Report | undefined;
  const kernel = starting.use(
    openKernel({
      ...options,
      onStatus: () => report?.write(),
      onWait: () => removeState(config.sharedFolder),
    }),
  );
  starting.use(
    giveBackSpareMemory(clock, log.child({ component: 'memory' }), () => kernel.trimMemory()),
  );
  const { mode } = kernel;
  const parts = [kernel];
  // No mutation: without a redirect in the kernel there are no samples; the lab reads them.
  exportParts(metrics, parts);
  // What fails here, the first check reports.
  await kernel.prepare().catch(() => undefined);
  if (mode === 'ebpf' || mode === 'iptables') {
    report = new Report(options, kernel, mode);
    const letThrough = (): void => {
      const cgroups = readNodePods(config.sharedFolder);
      if (cgroups !== undefined) void kernel.letThrough(cgroups);
    };
    starting.use(watchShared(nodePodsPath(config.sharedFolder), letThrough));
    letThrough();
  }
  await kernel.start();
  starting.use(
    await openAdminPages({
      clock,
      config,
      metrics,
      parts,
      hasBeenActive: () => kernel.hasBeenActive,
      // Two that start at the same time do not know of each other yet.
      onTaken: config.slotFolder === '' ? undefined : (port) => log.info({ port }, waitingForPort),
    }),
  );
  const running = starting.move();
  return {
    [Symbol.asyncDispose]: async () => {
      await kernel.leave();
      report?.write('leaving');
      await running.disposeAsync();
    },
  };
}

/** Each check is reported, and between them what changes for the agent. */
const reportEveryMs = 10_000;

/** For the agent in the other container. */
class Report {
  readonly #options: Pick<KernelOptions, 'config' | 'clock' | 'log'>;
  readonly #kernel: NodeRedirect;
  readonly #mode: MaintainedMode;
  readonly #target: string;
  #last = '';
  #lastMs = -Infinity;
  #problem: string | undefined;

  constructor(
    options: Pick<KernelOptions, 'config' | 'clock' | 'log'>,
    kernel: NodeRedirect,
    mode: MaintainedMode,
  ) {
    this.#options = options;
    this.#kernel = kernel;
    this.#mode = mode;
    this.#target = describeTarget(reachableTarget(options.config));
  }

  write(ends?: 'leaving'): void {
    const { config, clock, log } = this.#options;
    try {
      const problem = this.#kernel.isWaiting ? undefined : this.#kernel.problem();
      const state = {
        mode: this.#mode,
        target: this.#target,
        port: this.#kernel.port,
        redirectedTo: this.#kernel.status().port ?? null,
        isAlone: this.#kernel.isAlone(),
        isLeaving: ends !== undefined,
        problems: problem === undefined ? [] : [problem],
      };
      const text = JSON.stringify(state);
      const nowMs = clock.monotonicMs();
      if (text === this.#last && nowMs - this.#lastMs < reportEveryMs) return;
      writeState(config.sharedFolder, { ...state, at: new Date(clock.wallMs()).toISOString() });
      this.#last = text;
      this.#lastMs = nowMs;
      this.#problem = undefined;
    } catch (error) {
      const text = error instanceof Error ? error.message : 'unknown error';
      if (text !== this.#problem) log.warn({ problem: text }, 'state of the redirect not written');
      this.#problem = text;
    }
  }
}
