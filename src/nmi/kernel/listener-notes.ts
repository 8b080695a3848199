/**
 * The protocol for passing a listening socket: one byte in each direction over a Unix socket, with
 * the listening socket attached. The connection stays open while the receiver has the socket.
 *
 *     to the holder    want           requests a descriptor
 *                      have + socket  the sender still has it from a holder that ended
 *     from the holder  alone + socket, shared + socket, or the reason why there is none
 */
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { FlowEnd, NativeModule, Note } from '../../redirect/native/addon.ts';
import { CodedError } from '../../base/coded-error.ts';
import { networkCode } from '../../base/network-code.ts';

/** Where the holder serves the agent of its pod: beside the socket for look-ups. */
export function listenerPath(callerSocket: string): string {
  return join(dirname(callerSocket), 'listener.sock');
}

export const notes = {
  want: 1,
  have: 2,
  /** No other process accepts connections from it. */
  alone: 3,
  /** The agent of another pod also accepts connections from it, until that pod ends. */
  shared: 4,
  EADDRINUSE: 5,
  EADDRNOTAVAIL: 6,
  EACCES: 7,
  /** The holder's log has the reason. */
  failed: 8,
} as const;

/** No socket was received: `code` is from the failed system call, here or in the holder. */
export class ListenerError extends CodedError<string> {
  constructor(code: string, path: string) {
    super(code, `no listening socket from ${path}: ${code}`);
  }
}

/** The caller closes the descriptor, which is that of the listening socket. */
export interface HolderAnswer extends Note {
  /** Connection to the holder; not yet read by Node. */
  readonly connection: Socket;
}

// No mutation: a shorter interval only costs CPU time.
const pollMs = 5;
/** Enough for a slow holder on a busy node; a holder that hangs must not block for longer. */
const answerMs = 2_000;

/**
 * Requests the socket from the holder at a path.
 * @param had the socket, if this process already has it.
 * @throws ListenerError
 */
export async function askHolder(
  native: NativeModule,
  path: string,
  had?: number,
): Promise<HolderAnswer> {
  let local: number | undefined;
  try {
    local = native.connectLocal(path);
    native.sendNote(local, had === undefined ? notes.want : notes.have, had);
    const answer = await awaitNote(native, local, () => false, answerMs);
    if (answer === undefined) throw new ListenerError('ETIMEDOUT', path);
    const connection = new Socket({ fd: local, readable: true });
    local = undefined;
    connection.on('error', () => connection.destroy());
    return { ...answer, connection };
  } catch (error) {
    throw error instanceof ListenerError ? error : new ListenerError(networkCode(error), path);
  } finally {
    if (local !== undefined) closeSync(local);
  }
}

/**
 * The next note of the other end, or undefined when none arrives in time or `isOver` returns true.
 * A descriptor that Node has closed may already be reused: `isOver` is checked before each read.
 * @throws errors of the native module, ECONNRESET when the other end has closed.
 */
export async function awaitNote(
  native: Pick<NativeModule, 'receiveNote'>,
  descriptor: number,
  isOver: () => boolean,
  maxMs: number,
): Promise<Note | undefined> {
  const deadlineMs = performance.now() + maxMs;
  while (!isOver()) {
    const note = native.receiveNote(descriptor);
    if (note !== undefined) return note;
    if (performance.now() > deadlineMs) return undefined;
    await delay(pollMs);
  }
  return undefined;
}

const failures = ['EADDRINUSE', 'EADDRNOTAVAIL', 'EACCES', 'failed'] as const;

/** The note for a failed system call. */
export function noteOf(code: string): number {
  return notes[failures.find((each) => each === code) ?? 'failed'];
}

/** The code of the failed system call that a note reports. */
export function codeOf(note: number): string {
  return failures.find((each) => notes[each] === note) ?? 'failed';
}

/** Whether a descriptor is a listening socket at that address. */
export function listensAt(native: NativeModule, descriptor: number, address: FlowEnd): boolean {
  try {
    const { ip, port } = native.listenerAddress(descriptor);
    return ip === address.ip && port === address.port;
  } catch {
    return false;
  }
}

/** Undocumented property: Node itself passes descriptors only to its own children. */
export function descriptorOf(
  socket: Socket & { readonly _handle?: { readonly fd?: number } },
): number {
  const descriptor = socket._handle?.fd;
  if (descriptor === undefined || descriptor < 0) throw new Error('a socket without a descriptor');
  return descriptor;
}
