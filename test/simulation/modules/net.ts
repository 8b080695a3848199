/** In place of node:net: streams over the simulated network and over Unix sockets. */
import { EventEmitter } from 'node:events';
import { Duplex } from 'node:stream';
import { LocalListener, type LocalEnd } from '../local-sockets.ts';
import { currentProcess, TcpListener, type Process } from '../machine.ts';
import { failure } from '../open-file.ts';
import { currentNetwork } from '../network.ts';
import { LocalWire, TcpEnd, type Wire } from '../wires.ts';

export * from 'node:net';

type Done = (error?: Error | null) => void;

export class Socket extends Duplex {
  readonly #owner: Process;
  #wire: Wire | undefined;
  #isReading = false;
  #hasEnded = false;
  #idleMs = 0;
  #disarmIdle: (() => void) | undefined;
  #pending: (() => void)[] = [];
  connecting = false;
  readonly #onProcessEnd = (): void => {
    this.#wire?.close(false);
    currentNetwork().leftOver.push(this);
  };

  constructor(owner: Process, allowHalfOpen: boolean) {
    super({ allowHalfOpen, autoDestroy: true, emitClose: true });
    this.#owner = owner;
    owner.sockets += 1;
    owner.onEnd.add(this.#onProcessEnd);
  }

  /** @returns this. */
  open(wire: Wire): this {
    this.#wire = wire;
    wire.onArrival = () => this.#owner.enter(() => this.#receive());
    for (const work of this.#pending.splice(0)) work();
    this.#receive();
    return this;
  }

  get remoteAddress(): string | undefined {
    return this.destroyed ? undefined : this.#wire?.remote?.ip;
  }
  get remotePort(): number | undefined {
    return this.destroyed ? undefined : this.#wire?.remote?.port;
  }
  get localAddress(): string | undefined {
    return this.destroyed ? undefined : this.#wire?.local?.ip;
  }
  get localPort(): number | undefined {
    return this.destroyed ? undefined : this.#wire?.local?.port;
  }

  setTimeout(ms: number, onTimeout?: () => void): this {
    this.#idleMs = ms;
    if (onTimeout !== undefined) {
      if (ms === 0) this.off('timeout', onTimeout);
      else this.once('timeout', onTimeout);
    }
    this.#touch();
    return this;
  }

  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  resetAndDestroy(): this {
    this.#wire?.close(true);
    return this.destroy();
  }

  override _read(): void {
    this.#isReading = true;
    this.#receive();
  }

  override _write(chunk: Buffer, _encoding: string, done: Done): void {
    this.#whenOpen(() => {
      this.#touch();
      this.#wire?.send(Buffer.from(chunk));
      done();
    });
  }

  override _final(done: Done): void {
    this.#whenOpen(() => {
      this.#wire?.end();
      done();
    });
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#disarmIdle?.();
    this.#wire?.close(false);
    this.#owner.onEnd.delete(this.#onProcessEnd);
    this.#owner.sockets -= 1;
    this.#pending = [];
    done(error);
  }

  #whenOpen(work: () => void): void {
    if (this.connecting || this.#wire === undefined) this.#pending.push(work);
    else work();
  }

  #touch(): void {
    this.#disarmIdle?.();
    this.#disarmIdle = undefined;
    if (this.#idleMs === 0 || this.destroyed) return;
    this.#disarmIdle = this.#owner.after(this.#idleMs, 'idle', () => this.emit('timeout'));
  }

  #receive(): void {
    while (this.#isReading && !this.destroyed && !this.#hasEnded) {
      const arrival = this.#wire?.receive();
      if (arrival === undefined) return;
      this.#touch();
      if (arrival === 'reset') this.destroy(failure('ECONNRESET', 'read'));
      else if (arrival === 'end') {
        this.#hasEnded = true;
        this.push(null);
      } else this.#isReading = this.push(arrival);
    }
  }
}

interface ListenOptions {
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
}

/** The part of a server that listens; Node's HTTP server gets one, too. */
export class Listening {
  readonly #server: EventEmitter & { maxConnections?: number };
  readonly #owner = currentProcess();
  readonly #allowHalfOpen: boolean;
  #stop: (() => void) | undefined;
  #address: { readonly address: string; readonly port: number } | undefined;
  readonly #sockets = new Set<Socket>();
  #isAcceptDue = false;
  #hasBegun = false;

  constructor(server: EventEmitter, allowHalfOpen: boolean) {
    this.#server = server;
    this.#allowHalfOpen = allowHalfOpen;
  }

  get isOpen(): boolean {
    return this.#stop !== undefined;
  }

  get address(): { readonly address: string; readonly port: number } | null {
    return this.#address ?? null;
  }

  listen(...given: readonly unknown[]): void {
    const onListening = given.find((each) => typeof each === 'function') as
      (() => void) | undefined;
    if (onListening !== undefined) this.#server.once('listening', onListening);
    const [first, second] = given;
    const options: ListenOptions =
      typeof first === 'object'
        ? (first as ListenOptions)
        : typeof first === 'string'
          ? { path: first }
          : { port: Number(first), ...(typeof second === 'string' ? { host: second } : {}) };
    try {
      if (options.path !== undefined) this.#listenLocally(options.path);
      else this.#listenOn(this.#listenerFor(options));
      this.#owner.soon('listening', () => {
        if (!this.isOpen) return;
        this.#hasBegun = true;
        this.#server.emit('listening');
      });
    } catch (error) {
      this.#owner.soon('listen failure', () => this.#server.emit('error', error));
    }
  }

  close(done?: (error?: Error) => void): void {
    if (done !== undefined) this.#server.once('close', () => done());
    this.#stop?.();
    this.#stop = undefined;
    this.#closeWhenUnused();
  }

  #listenerFor({ host = '0.0.0.0', port = 0 }: ListenOptions): number {
    const owner = this.#owner;
    const free = port === 0 ? currentNetwork().nextPort() : port;
    owner.machine.addresses.add('0.0.0.0');
    return owner.open(owner.machine.listen(host, free));
  }

  #listenOn(fd: number): void {
    const owner = this.#owner;
    const listener = owner.at(fd);
    if (!(listener instanceof TcpListener)) throw failure('EINVAL', 'listen');
    this.#address = { address: listener.ip, port: listener.port };
    const accept = (): void => {
      this.#soon(() => {
        const wire = listener.waiting.shift();
        if (!(wire instanceof TcpEnd)) return;
        if (listener.waiting.length > 0) accept();
        wire.owner = owner;
        this.#connected(wire);
      });
    };
    listener.acceptors.add(accept);
    const leave = (): void => void listener.acceptors.delete(accept);
    owner.onEnd.add(leave);
    this.#stop = () => {
      leave();
      owner.onEnd.delete(leave);
      if (owner.isAlive) owner.close(fd);
    };
    if (listener.waiting.length > 0) accept();
  }

  #listenLocally(path: string): void {
    const owner = this.#owner;
    const { files } = owner.machine;
    const accept = (): void => {
      this.#soon(() => {
        const end = listener.accept();
        if (end === undefined) return;
        accept();
        const fd = owner.open(end);
        this.#connected(new LocalWire(end, () => owner.isAlive && owner.close(fd)));
      });
    };
    const listener = new LocalListener(accept);
    files.make(path, owner, 0o600, listener);
    const stop = (): void => listener.close();
    owner.onEnd.add(stop);
    this.#stop = () => {
      if (files.has(path) && files.find(path).listener !== undefined) files.unlink(path);
      stop();
    };
  }

  #soon(work: () => void): void {
    if (this.#isAcceptDue) return;
    this.#isAcceptDue = true;
    this.#owner.soon('accept', () => {
      this.#isAcceptDue = false;
      if (!this.isOpen) return;
      // As in Node, whose HTTP server closes no connection that came before the event.
      if (this.#hasBegun) work();
      else this.#soon(work);
    });
  }

  #connected(wire: Wire): void {
    if (this.#sockets.size >= (this.#server.maxConnections ?? Infinity)) {
      wire.close(false);
      this.#server.emit('drop');
      return;
    }
    const socket = new Socket(this.#owner, this.#allowHalfOpen);
    this.#sockets.add(socket);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#closeWhenUnused();
    });
    this.#server.emit('connection', socket.open(wire));
  }

  #closeWhenUnused(): void {
    if (this.isOpen || this.#sockets.size > 0) return;
    this.#owner.soon('server close', () => this.#server.emit('close'));
  }
}

const listenings = new WeakMap<object, Listening>();

/** Gives a server of Node's its listening part. */
export function giveListening(server: EventEmitter, allowHalfOpen: boolean): Listening {
  const listening = new Listening(server, allowHalfOpen);
  listenings.set(server, listening);
  return listening;
}

export class Server extends EventEmitter {
  maxConnections = Infinity;
  readonly #listening = giveListening(this, false);

  get listening(): boolean {
    return this.#listening.isOpen;
  }

  listen(...given: readonly unknown[]): this {
    this.#listening.listen(...given);
    return this;
  }

  address(): unknown {
    return this.#listening.address;
  }

  /** Also called with an HTTP server. */
  close(done?: () => void): this {
    listenings.get(this)?.close(done);
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return new Promise((resolve) => {
      this.close(() => resolve());
    });
  }
}

export function createServer(onConnection?: (socket: Socket) => void): Server {
  const server = new Server();
  if (typeof onConnection === 'function') server.on('connection', onConnection);
  return server;
}

interface ConnectOptions {
  readonly path?: string;
  readonly host?: string;
  readonly port?: number;
}

export function connect({ path, host = '', port = 0 }: ConnectOptions): Socket {
  const owner = currentProcess();
  const socket = new Socket(owner, false);
  socket.connecting = true;
  const connected = (wire: Wire): void => {
    if (socket.destroyed) return wire.close(true);
    socket.connecting = false;
    socket.open(wire);
    socket.emit('connect');
    socket.emit('ready');
  };
  if (path !== undefined) connectLocally(owner, socket, path, connected);
  else {
    owner.soon('connection attempt', () => socket.emit('connectionAttempt'));
    const { machine } = owner;
    const source = { ip: [...machine.addresses][0] ?? '', port: currentNetwork().nextPort() };
    const end = currentNetwork().connect(
      machine,
      owner,
      source,
      { ip: host, port },
      (isRefused) => {
        if (isRefused) socket.destroy(failure('ECONNREFUSED', 'connect'));
        else connected(end);
      },
    );
    owner.onEnd.add(() => end.close(true));
  }
  return socket;
}

function connectLocally(
  owner: Process,
  socket: Socket,
  path: string,
  connected: (wire: Wire) => void,
): void {
  try {
    const { listener } = owner.machine.files.find(path);
    if (listener === undefined) throw failure('ECONNREFUSED', 'connect');
    const end: LocalEnd = listener.connect();
    const fd = owner.open(end);
    const wire = new LocalWire(end, () => owner.isAlive && owner.close(fd));
    owner.soon('connect', () => connected(wire));
  } catch (error) {
    owner.soon('connect failure', () => socket.destroy(error as Error));
  }
}
