/**
 * A file of lines that another program rotates. Lines are written in batches outside the event
 * loop, one write at a time: a slow disk delays no answer. The queue is bounded. Lines that cannot
 * be written, for example to a full disk, are dropped and counted. A file that was renamed or
 * deleted is opened anew.
 */
import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../../../base/time/clock.ts';
import { CodedError } from '../../../base/coded-error.ts';
import { networkCode } from '../../../base/network-code.ts';
import { StartError } from '../../../base/start-error.ts';

export interface RecordFileOptions {
  readonly path: string;
  readonly clock: Clock;
  /** Lines that were not written, and the code of the error. */
  readonly onDropped: (count: number, code: string) => void;
  readonly onWritten: (count: number) => void;
}

export interface RecordFile extends AsyncDisposable {
  /** @param line ASCII, newline included. */
  write(line: string): void;
}

/** Some seconds of a busy node. */
const maxWaitingBytes = 1024 * 1024;
const checkEveryMs = 1_000;
/** A disk that hangs must not prevent the agent from ending. */
const closeWithinMs = 2_000;

/**
 * For the agent's user only. No link: a user who can write to the directory could point it
 * anywhere.
 */
const flags =
  constants.O_WRONLY |
  constants.O_APPEND |
  constants.O_CREAT |
  constants.O_NOFOLLOW |
  // Without it, opening a named pipe blocks.
  constants.O_NONBLOCK;
const mode = 0o600;

/** @throws StartError `CONFIG` when it cannot be opened for writing. */
export async function openRecordFile(options: RecordFileOptions): Promise<RecordFile> {
  const { path } = options;
  try {
    return new AppendedFile(options, await openFile(path));
  } catch (error) {
    throw new StartError(
      'CONFIG',
      `the audit log ${path} cannot be opened for writing (${networkCode(error)})`,
      '--audit-log takes a file on a volume that the agent can write to, or stdout',
    );
  }
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly inode: number;
  readonly device: number;
}

async function openFile(path: string): Promise<OpenFile> {
  const handle = await open(path, flags, mode);
  const stats = await handle.stat();
  if (stats.isFile()) return { handle, inode: stats.ino, device: stats.dev };
  await handle.close();
  throw new CodedError('NO_REGULAR_FILE', 'a pipe or a device');
}

class AppendedFile implements RecordFile {
  readonly #options: RecordFileOptions;
  /** Undefined while it cannot be opened anew; the reason is in `#openCode`. */
  #file: OpenFile | undefined;
  #openCode = '';
  #waiting: string[] = [];
  #waitingBytes = 0;
  /** Settles when no line waits. */
  #writing: Promise<void> | undefined;
  #checkedAtMs: number;
  /** The last write ended within a line. */
  #isWithinLine = false;

  constructor(options: RecordFileOptions, file: OpenFile) {
    this.#options = options;
    this.#file = file;
    this.#checkedAtMs = options.clock.monotonicMs();
  }

  write(line: string): void {
    if (this.#waitingBytes + line.length > maxWaitingBytes) {
      this.#options.onDropped(1, 'QUEUE_FULL');
      return;
    }
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
    this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise: isLate, resolve } = Promise.withResolvers<void>();
    const disarm = this.#options.clock.schedule(closeWithinMs, resolve);
    await Promise.race([this.#close(), isLate]);
    disarm();
  }

  async #close(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    await this.#file?.handle.close().catch(() => undefined);
    this.#file = undefined;
  }

  #start(): void {
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
      if (this.#waiting.length > 0) this.#start();
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      // Waits for all lines of this turn.
      await nextTurn();
      await this.#reopenIfRotated();
      const lines = this.#waiting;
      this.#waiting = [];
      await this.#append(lines);
      // Until here they are in memory.
      this.#waitingBytes = this.#waiting.reduce((bytes, { length }) => bytes + length, 0);
    }
  }

  async #append(lines: readonly string[]): Promise<void> {
    const { onWritten, onDropped } = this.#options;
    if (this.#file === undefined) {
      onDropped(lines.length, this.#openCode);
      return;
    }
    // A line that a full disk has cut short is ended, so that the next line is complete.
    const start = this.#isWithinLine ? '\n' : '';
    const bytes = Buffer.from(start + lines.join(''), 'latin1');
    let written = 0;
    try {
      while (written < bytes.length) {
        const { bytesWritten } = await this.#file.handle.write(bytes, written);
        written += bytesWritten;
      }
      this.#isWithinLine = false;
      onWritten(lines.length);
    } catch (error) {
      const newline = 0x0a;
      if (written > 0) this.#isWithinLine = bytes[written - 1] !== newline;
      const ended = bytes.subarray(start.length, written).filter((byte) => byte === newline).length;
      onWritten(ended);
      onDropped(lines.length - ended, networkCode(error));
    }
  }

  /** Rotation renames or deletes the file; copying and truncating it needs no reopening. */
  async #reopenIfRotated(): Promise<void> {
    const { path, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#checkedAtMs < checkEveryMs) return;
    this.#checkedAtMs = nowMs;
    const before = this.#file;
    const found = await stat(path).catch(() => undefined);
    if (before !== undefined && found?.ino === before.inode && found.dev === before.device) return;
    this.#file = await openFile(path).catch((error: unknown) => {
      this.#openCode = networkCode(error);
      return undefined;
    });
    this.#isWithinLine = false;
    await before?.handle.close().catch(() => undefined);
  }
}
