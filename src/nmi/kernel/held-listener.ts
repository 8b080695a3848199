/**
 * The agent's side of the listening socket that `nmi redirect run` in another container holds. When
 * the holder ends, the agent gives the socket back to the next holder, which could otherwise
 * neither listen nor pass the socket on.
 */
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { nativeModule, type FlowEnd, type NativeModule } from '../../redirect/native/addon.ts';
import { askHolder, codeOf, ListenerError, listensAt, notes } from './listener-notes.ts';

export interface HeldListener extends Disposable {
  /** Descriptor of the listening socket. The caller closes it. */
  readonly descriptor: number;
  /** The agent of another pod also accepts connections from it, until that pod ends. */
  readonly isShared: boolean;
  /** Resolves when the agent is alone with it, as far as the holder knows. */
  readonly untilAlone: Promise<void>;
}

export interface HeldListenerOptions {
  /** Path of the holder's Unix socket. */
  readonly path: string;
  /** Where the socket must listen. */
  readonly address: FlowEnd;
}

/** The two containers start at the same time, and a terminating one may still have the address. */
const patienceMs = 30_000;
const retryMs = 200;
const reconnectMs = 100;

/**
 * Takes the socket from its holder, and keeps the connection to it until disposed.
 * @returns undefined when the signal aborted.
 * @throws ListenerError when no holder provides the socket for half a minute, for the same reason.
 */
export async function takeListener(
  options: HeldListenerOptions,
  signal?: AbortSignal,
): Promise<HeldListener | undefined> {
  const native = nativeModule();
  let deadlineMs = Infinity;
  let reason = '';
  for (;;) {
    if (signal?.aborted === true) return undefined;
    try {
      const { descriptor, isShared, connection } = await takeOnce(native, options);
      const { promise: untilAlone, resolve } = Promise.withResolvers<void>();
      if (!isShared) resolve();
      const close = keepForNext(native, options, descriptor, connection, resolve);
      return { descriptor, isShared, untilAlone, [Symbol.dispose]: close };
    } catch (error) {
      if (!(error instanceof ListenerError)) throw error;
      // Another reason than before: a holder that starts after a back-off has the socket in a moment.
      if (error.code !== reason) deadlineMs = performance.now() + patienceMs;
      else if (performance.now() > deadlineMs) throw error;
      reason = error.code;
    }
    await delay(retryMs);
  }
}

async function takeOnce(
  native: NativeModule,
  { path, address }: HeldListenerOptions,
  had?: number,
): Promise<{ descriptor: number; isShared: boolean; connection: Socket }> {
  const { note, descriptor, connection } = await askHolder(native, path, had);
  if (descriptor !== undefined && listensAt(native, descriptor, address)) {
    return { descriptor, isShared: note === notes.shared, connection };
  }
  connection.destroy();
  if (descriptor === undefined) throw new ListenerError(codeOf(note), path);
  closeSync(descriptor);
  throw new ListenerError('EADDRNOTAVAIL', path);
}

/**
 * Gives the socket to the next holder whenever a holder ends, or ends the connection since no other
 * agent is left; returns how to end that.
 */
function keepForNext(
  native: NativeModule,
  options: HeldListenerOptions,
  descriptor: number,
  first: Socket,
  onAlone: () => void,
): () => void {
  // The server that accepts connections closes the other descriptor.
  const spare = native.duplicate(descriptor);
  const closing = new AbortController();
  let holder: Socket;
  function keep(connection: Socket): void {
    holder = connection;
    connection.once('close', () => void giveBack());
    // Reads only detect the end of the connection, which must not keep an idle process alive.
    connection.resume().unref();
  }
  async function giveBack(): Promise<void> {
    while (!closing.signal.aborted) {
      await delay(reconnectMs, undefined, { ref: false });
      if (closing.signal.aborted) return;
      try {
        const taken = await takeOnce(native, options, spare);
        closeSync(taken.descriptor);
        if (!taken.isShared) onAlone();
        if (closing.signal.aborted) taken.connection.destroy();
        else keep(taken.connection);
        return;
      } catch (error) {
        if (!(error instanceof ListenerError)) throw error;
      }
    }
  }
  keep(first);
  return () => {
    if (closing.signal.aborted) return;
    closing.abort();
    closeSync(spare);
    holder.destroy();
  };
}
