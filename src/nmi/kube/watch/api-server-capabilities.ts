/** What the reflectors of one API server share: what it cannot do, and that it has recovered. */
import { ignoreObserverError, Observers } from '../../../cache/index/observers.ts';

export interface ApiServerCapabilities {
  /** Lists may be requested as streams: the server has not refused one yet. */
  readonly streamsLists: boolean;
  /** For the life of this process: paged lists are as good, only larger in memory. */
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
