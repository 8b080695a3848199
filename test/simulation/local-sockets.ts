/** Unix sockets of a simulated machine. */
import { failure, OpenFile } from './open-file.ts';

/** One end of a connection. */
export class LocalEnd extends OpenFile {
  #peer: LocalEnd | undefined;
  readonly #bytes: Buffer[] = [];
  #isReset = false;
  /** Something has arrived, or the other end has closed. */
  onChange: (() => void) | undefined;

  static pair(): readonly [LocalEnd, LocalEnd] {
    const pair = [new LocalEnd(), new LocalEnd()] as const;
    pair[0].#peer = pair[1];
    pair[1].#peer = pair[0];
    return pair;
  }

  write(bytes: Buffer): void {
    if (this.#peer === undefined) return;
    this.#peer.#bytes.push(bytes);
    this.#peer.onChange?.();
  }

  /** What `write` has sent; the state when there is nothing more. */
  read(): Buffer | 'open' | 'ended' | 'reset' {
    const bytes = this.#bytes.shift();
    if (bytes !== undefined) return bytes;
    if (this.#peer !== undefined) return 'open';
    return this.#isReset ? 'reset' : 'ended';
  }

  /** As at the close of a listener before it has accepted the connection. */
  resetPeer(): void {
    this.closed(true);
  }

  protected closed(resets = false): void {
    const peer = this.#peer;
    const hasUnread = this.#bytes.splice(0).length > 0;
    this.#peer = undefined;
    this.onChange = undefined;
    if (peer === undefined) return;
    peer.#peer = undefined;
    peer.#isReset = resets || hasUnread;
    peer.onChange?.();
  }
}

/** As Node listens. */
const maxWaiting = 511;

export class LocalListener {
  readonly #waiting: LocalEnd[] = [];
  readonly #onWaiting: () => void;
  isOpen = true;

  constructor(onWaiting: () => void) {
    this.#onWaiting = onWaiting;
  }

  connect(): LocalEnd {
    if (!this.isOpen) throw failure('ECONNREFUSED', 'connect');
    if (this.#waiting.length > maxWaiting) throw failure('EAGAIN', 'connect');
    const [near, far] = LocalEnd.pair();
    this.#waiting.push(far);
    this.#onWaiting();
    return near;
  }

  accept(): LocalEnd | undefined {
    return this.#waiting.shift();
  }

  close(): void {
    this.isOpen = false;
    for (const end of this.#waiting.splice(0)) end.resetPeer();
  }
}
