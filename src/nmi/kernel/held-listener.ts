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
 * @throws ListenerError when no holder provides the socket for half a minute.
 */
export async function takeListener(
  options: HeldListenerOptions,
  signal?: AbortSignal,
): Promise<HeldListener | undefined> {
  const native = nativeModule();
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    if (signal?.aborted === true) return undefined;
    try {
      const { descriptor, isShared, connection } = await takeOnce(native, options);
      const kept = new KeptListener(native, options, descriptor, connection);
      return { descriptor, isShared, [Symbol.dispose]: () => kept.close() };
    } catch (error) {
      if (!(error instanceof ListenerError) || performance.now() > deadlineMs) throw error;
    }
    await delay(retryMs);
  }
}

interface Taken {
  readonly descriptor: number;
  readonly isShared: boolean;
  readonly connection: Socket;
}

async function takeOnce(
  native: NativeModule,
  { path, address }: HeldListenerOptions,
  had?: number,
): Promise<Taken> {
  const { note, descriptor, connection } = await askHolder(native, path, had);
  if (descriptor !== undefined && listensAt(native, descriptor, address)) {
    return { descriptor, isShared: note === notes.shared, connection };
  }
  connection.destroy();
  if (descriptor === undefined) throw new ListenerError(codeOf(note), path);
  closeSync(descriptor);
  throw new ListenerError('EADDRNOTAVAIL', path);
}

class KeptListener {
  readonly #native: NativeModule;
  readonly #options: HeldListenerOptions;
  /** For the next holder. The server that accepts connections closes the other descriptor. */
  readonly #spare: number;
  #connection: Socket | undefined;
  #isClosed = false;

  constructor(
    native: NativeModule,
    options: HeldListenerOptions,
    descriptor: number,
    connection: Socket,
  ) {
    this.#native = native;
    this.#options = options;
    this.#spare = native.duplicate(descriptor);
    this.#keep(connection);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#spare);
    this.#connection?.destroy();
  }

  #keep(connection: Socket): void {
    this.#connection = connection;
    connection.once('close', () => void this.#giveBack());
    // Reads only detect the end of the connection, which must not keep an idle process alive.
    connection.resume().unref();
  }

  async #giveBack(): Promise<void> {
    while (!this.#isClosed) {
      await delay(reconnectMs, undefined, { ref: false });
      if (this.#isClosed) return;
      try {
        const { descriptor, connection } = await takeOnce(this.#native, this.#options, this.#spare);
        closeSync(descriptor);
        if (this.#isClosed) connection.destroy();
        else this.#keep(connection);
        return;
      } catch (error) {
        if (!(error instanceof ListenerError)) throw error;
      }
    }
  }
}
