/** State that the reflectors of one API server share: its missing features, and its recovery. */
import { ignoreObserverError, Observers } from '../../../cache/index/observers.ts';

export interface ApiServerCapabilities {
  /** Lists may be requested as streams: the server has not refused one yet. */
  readonly streamsLists: boolean;
  /** For the life of this process: paged lists work as well, but need more memory. */
  refuseStreams(): void;
  /** The server answers again after an outage: one reflector that retries often serves all. */
  notifyRecovery(): void;
  /** The returned function unsubscribes. */
  onRecovery(observer: () => void): () => void;
}

export function createApiServerCapabilities(): ApiServerCapabilities {
  const recovery = new Observers(ignoreObserverError);
  let streamsLists = true;
  return {
    get streamsLists() {
      return streamsLists;
    },
    refuseStreams() {
      streamsLists = false;
    },
    notifyRecovery: () => recovery.notify(),
    onRecovery: (observer) => recovery.add(observer),
  };
}
