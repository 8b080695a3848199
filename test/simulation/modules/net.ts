/** In place of node:net: Unix sockets as the code under test uses them. */
import { EventEmitter } from 'node:events';
import { LocalEnd, LocalListener } from '../local-sockets.ts';
import { currentProcess, type Process } from '../machine.ts';
import { failure } from '../open-file.ts';

export class Socket extends EventEmitter {
  readonly #owner = currentProcess();
  readonly #onDestroyed: () => void;
  _handle: { readonly fd: number } | null = null;
  destroyed = false;
  #end: LocalEnd | undefined;
  #isReading = false;
  #isReadDue = false;

  constructor({ fd }: { readonly fd?: number } = {}, onDestroyed: () => void = () => undefined) {
    super();
    this.#onDestroyed = onDestroyed;
    if (fd !== undefined) this.#open(fd);
  }

  #open(fd: number): void {
    const end = this.#owner.at(fd);
    if (!(end instanceof LocalEnd)) throw failure('ENOTSOCK', 'open socket');
    this._handle = { fd };
    this.#end = end;
    end.onChange = () => this.#readSoon();
  }

  connect({ path }: { readonly path: string }): this {
    const owner = this.#owner;
    try {
      const { listener } = owner.machine.files.look(path, owner);
      if (listener === undefined) throw failure('ECONNREFUSED', 'connect');
      this.#open(owner.open(listener.connect()));
      owner.soon('connect', () => {
        if (!this.destroyed) this.emit('connect');
      });
    } catch (error) {
      owner.soon('connect failure', () => this.destroy(error as Error));
    }
    return this;
  }

  /** Only a socket that is read notices the end of its connection. */
  resume(): this {
    this.#isReading = true;
    this.#readSoon();
    return this;
  }

  unref(): this {
    return this;
  }

  destroy(error?: Error): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    if (this._handle !== null) this.#owner.close(this._handle.fd);
    this._handle = null;
    this.#onDestroyed();
    this.#owner.soon('close', () => {
      if (error !== undefined) this.emit('error', error);
      this.emit('close');
    });
    return this;
  }

  #readSoon(): void {
    if (!this.#isReading || this.#isReadDue || this.destroyed) return;
    this.#isReadDue = true;
    this.#owner.soon('read', () => this.#read());
  }

  #read(): void {
    this.#isReadDue = false;
    if (this.destroyed || this.#end === undefined) return;
    const state = this.#end.discard();
    if (state === 'reset') this.destroy(failure('ECONNRESET', 'read'));
    if (state !== 'ended') return;
    this.emit('end');
    this.destroy();
  }
}

/** Whatever the process asks for: nobody else is on the machine. */
const socketMode = 0o600;

export class Server extends EventEmitter {
  readonly #owner: Process = currentProcess();
  maxConnections = Infinity;
  #listener: LocalListener | undefined;
  #path = '';
  #connections = 0;
  #isAcceptDue = false;

  get listening(): boolean {
    return this.#listener !== undefined;
  }

  listen(given: string | { readonly path: string }): this {
    const path = typeof given === 'string' ? given : given.path;
    const owner = this.#owner;
    const listener = new LocalListener(() => this.#acceptSoon());
    try {
      owner.machine.files.make(path, owner, socketMode, listener);
    } catch (error) {
      owner.soon('listen failure', () => this.emit('error', error));
      return this;
    }
    this.#path = path;
    this.#listener = listener;
    // Of a process that is killed, nobody removes the file.
    owner.onEnd.add(() => listener.close());
    owner.soon('listening', () => {
      if (this.#listener === listener) this.emit('listening');
    });
    return this;
  }

  close(done?: (error?: Error) => void): this {
    if (this.#listener === undefined) {
      const error = failure('ERR_SERVER_NOT_RUNNING', 'close');
      if (done !== undefined) this.once('close', () => done(error));
    } else {
      if (done !== undefined) this.once('close', () => done());
      this.#removeFile();
      this.#listener.close();
      this.#listener = undefined;
    }
    this.#closeWhenUnused();
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return new Promise((resolve) => {
      this.close(() => resolve());
    });
  }

  /** libuv removes what is at the path where it has bound the socket, whatever that is by now. */
  #removeFile(): void {
    const { files } = this.#owner.machine;
    if (files.has(this.#path)) files.unlink(this.#path, this.#owner);
  }

  #acceptSoon(): void {
    if (this.#isAcceptDue) return;
    this.#isAcceptDue = true;
    this.#owner.soon('accept', () => this.#accept());
  }

  #accept(): void {
    this.#isAcceptDue = false;
    const end = this.#listener?.accept();
    if (end === undefined) return;
    this.#acceptSoon();
    const fd = this.#owner.open(end);
    if (this.#connections >= this.maxConnections) {
      this.#owner.close(fd);
      return;
    }
    this.#connections += 1;
    const socket = new Socket({ fd }, () => {
      this.#connections -= 1;
      this.#closeWhenUnused();
    });
    this.emit('connection', socket);
  }

  #closeWhenUnused(): void {
    if (this.#listener !== undefined || this.#connections > 0) return;
    this.#owner.soon('server close', () => this.emit('close'));
  }
}

type OnConnection = (socket: Socket) => void;

export function createServer(
  given?: { readonly pauseOnConnect: true } | OnConnection,
  onConnection?: OnConnection,
): Server {
  const server = new Server();
  const listener = typeof given === 'function' ? given : onConnection;
  if (listener !== undefined) server.on('connection', listener);
  return server;
}

export function connect(options: { readonly path: string }): Socket {
  return new Socket().connect(options);
}
