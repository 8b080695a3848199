/** What the kernel's side counts by itself, read at every scrape by whoever keeps that side. */
import type { KernelCounts } from '../kernel/choose-redirect.ts';
import { createCountUp } from './count-up.ts';
import type { Metrics } from './metrics.ts';

export function describeKernelAtScrape(metrics: Metrics, kernel: KernelCounts): void {
  const countUp = createCountUp(metrics);
  let caught = 0;
  metrics.onScrape(() => {
    const counts = countsOf(kernel);
    if (counts === undefined) return;
    for (const [outcome, total] of [
      ['redirected', counts.redirected],
      ['exempt', counts.exempt],
      ['limit', counts.refusedLimit],
      ['full', counts.refusedFull],
    ] as const) {
      countUp('nmi_ebpf_connects_total', { outcome }, Number(total));
    }
    countUp('nmi_redirect_caught_total', {}, caught);
    // It takes a tool of the node's: the next scrape has it.
    void kernel.countCaught().then(
      (total) => (caught = total ?? caught),
      () => undefined,
    );
  });
}

/** Undefined where there is nothing, or nothing to be read: a scrape is worth more than a counter. */
function countsOf(kernel: KernelCounts): ReturnType<KernelCounts['counters']> {
  try {
    return kernel.counters();
  } catch {
    return undefined;
  }
}
