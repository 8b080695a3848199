/**
 * Logs callers that were refused because a map was full, from the programs' counters: at most one line
 * per check. The first check only sets the baseline.
 */
import type { EbpfRedirect } from '../../redirect/ebpf/ebpf.ts';
import type { Log } from '../../base/log.ts';

/** @param counters must not throw. */
export function watchRoom(counters: EbpfRedirect['counters'], log: Log): () => void {
  let before = counters();
  return () => {
    const now = counters();
    // New maps begin at 0.
    const grownBy = (key: 'refused' | 'unrecorded'): number =>
      Math.max(0, Number((now?.[key] ?? 0n) - (before?.[key] ?? 0n)));
    const refusedConnects = grownBy('refused');
    const unrecordedConnections = grownBy('unrecorded');
    before = now;
    if (refusedConnects + unrecordedConnections === 0) return;
    log.warn(
      { refusedConnects, unrecordedConnections },
      'pods have too many connections to the metadata address, further ones were refused',
    );
  };
}
