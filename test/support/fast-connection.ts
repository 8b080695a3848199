/** The fast path without a kernel: a caller's connection that a test writes requests to. */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { CallerConnection } from '../../src/nmi/callers/caller.ts';
import type { TokenFastPath } from '../../src/nmi/server/fast-path/fast-path.ts';

/** The part of a socket that the fast path uses; its kernel accepts every write. */
class FakeSocket extends EventEmitter {
  readonly writableLength = 0;
  readonly destroyed = false;
  readonly setTimeout = (): this => this;
  readonly isPaused = (): boolean => false;
  readonly pause = (): this => this;
  readonly resume = (): this => this;
  readonly unshift = (): void => undefined;
  readonly write = (): boolean => true;
}

/** A caller's connection, which starts again on the fast path after a handover. */
export class FastConnection {
  readonly #fastPath: TokenFastPath;
  readonly #caller: CallerConnection;
  readonly #isDraining: () => boolean;
  #socket: FakeSocket | undefined;

  constructor(fastPath: TokenFastPath, caller: CallerConnection, isDraining = () => false) {
    this.#fastPath = fastPath;
    this.#caller = caller;
    this.#isDraining = isDraining;
  }

  /** @returns whether the fast path answered. */
  ask(target: string): boolean {
    this.#socket ??= this.#open();
    const request = `GET ${target} HTTP/1.1\r\nMetadata: true\r\n\r\n`;
    this.#socket.emit('data', Buffer.from(request));
    return this.#socket !== undefined;
  }

  #open(): FakeSocket {
    const socket = new FakeSocket();
    this.#fastPath.accept({
      socket: socket as unknown as Socket,
      caller: this.#caller,
      isDraining: this.#isDraining,
      handOver: () => {
        this.#socket = undefined;
      },
      onSilent: () => undefined,
    });
    return socket;
  }
}
