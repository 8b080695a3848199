/**
 * What the reflectors of one API server tell each other: what the server cannot do, and that it is
 * back. So one of them alone has to look often whether an outage is over.
 */
export interface ServerMemory {
  /** Lists may be asked for as streams: the server has not refused one yet. */
  readonly streams: boolean;
  /** For as long as this process lives: paged lists are as good, only larger in memory. */
  refuseStreams(): void;
  /** The server answers again after it did not. */
  tellBack(): void;
  /** The returned function takes the listener away. */
  onBack(listener: () => void): () => void;
}

export function createServerMemory(): ServerMemory {
  let streams = true;
  const listeners = new Set<() => void>();
  return {
    get streams() {
      return streams;
    },
    refuseStreams() {
      streams = false;
    },
    tellBack() {
      for (const listener of listeners) listener();
    },
    onBack(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}
