/**
 * Logs that callers were refused for want of room: by the programs' counters, at most one line for each
 * look, however many there were. The first look takes what was counted before for history.
 */
import type { EbpfRedirect } from '../../redirect/ebpf/ebpf.ts';
import type { Log } from '../base/log.ts';

/** @param counters must not throw. */
export function watchRoom(counters: EbpfRedirect['counters'], log: Log): () => void {
  let before = counters();
  return () => {
    const now = counters();
    // With other maps they begin at 0 again.
    const grownBy = (key: 'refused' | 'unfiled'): number =>
      Math.max(0, Number((now?.[key] ?? 0n) - (before?.[key] ?? 0n)));
    const refusedConnects = grownBy('refused');
    const unrecordedConnections = grownBy('unfiled');
    before = now;
    if (refusedConnects + unrecordedConnections === 0) return;
    log.warn(
      { refusedConnects, unrecordedConnections },
      'pods have too many connections to the metadata address, further ones were refused',
    );
  };
}
