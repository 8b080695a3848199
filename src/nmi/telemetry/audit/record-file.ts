/**
 * A file that another program rotates. Lines wait in bounds while the disk is full, and are counted
 * when lost.
 */
import { close, constants, fstat, open } from 'node:fs';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import sonic from 'sonic-boom';
import type { Clock } from '../../../base/time/clock.ts';
import { CodedError } from '../../../base/coded-error.ts';
import { networkCode } from '../../../base/network-code.ts';
import { StartError } from '../../../base/start-error.ts';
import { startPeriodicJob } from '../../../base/time/periodic-job.ts';

export interface RecordFileOptions {
  readonly path: string;
  readonly clock: Clock;
  /** Lines that were not written, none if they wait, and the code of the error. */
  readonly onDropped: (count: number, code: string) => void;
  readonly onWritten: (count: number) => void;
}

export interface RecordFile extends AsyncDisposable {
  write(line: string): void;
}

interface OpenFile extends RecordFile {
  readonly inode: number;
  readonly device: number;
}

/** Some seconds of a busy node. */
const maxWaitingBytes = 1024 * 1024;
const checkEveryMs = 1_000;
/** A disk that hangs must not prevent the agent from ending. */
const closeWithinMs = 2_000;

/** For the agent's user only. No link: who can write to the directory could point it anywhere. */
const flags =
  constants.O_WRONLY |
  constants.O_APPEND |
  constants.O_CREAT |
  constants.O_NOFOLLOW |
  // Without it, opening a named pipe blocks.
  constants.O_NONBLOCK;
const mode = 0o600;

export async function openRecordFile(options: RecordFileOptions): Promise<RecordFile> {
  const { path, clock, onDropped } = options;
  let code = '';
  const reopen = () =>
    openFile(options).catch((error: unknown) => {
      code = networkCode(error);
      return undefined;
    });
  let file = await reopen();
  if (file === undefined) {
    throw new StartError(
      'CONFIG',
      `the audit log ${path} cannot be opened for writing (${code})`,
      '--audit-log takes a file on a volume that the agent can write to, or stdout',
    );
  }
  // Rotation renames or deletes the file; copying and truncating it needs no reopening.
  const checks = startPeriodicJob(clock, checkEveryMs, async () => {
    const found = await stat(path).catch(() => undefined);
    if (file !== undefined && found?.ino === file.inode && found.dev === file.device) {
      return checkEveryMs;
    }
    const before = file;
    file = await reopen();
    // No mutation: that never throws, and the next check is soon enough in either case.
    await before?.[Symbol.asyncDispose]();
    return checkEveryMs;
  });
  return {
    write(line) {
      if (file === undefined) onDropped(1, code);
      else file.write(line);
    },
    async [Symbol.asyncDispose]() {
      checks[Symbol.dispose]();
      const last = file;
      file = undefined;
      await last?.[Symbol.asyncDispose]();
    },
  };
}

async function openFile(options: RecordFileOptions): Promise<OpenFile> {
  const { path, clock, onDropped, onWritten } = options;
  const fd = await promisify(open)(path, flags, mode);
  const stats = await promisify(fstat)(fd);
  if (!stats.isFile()) {
    await promisify(close)(fd);
    throw new CodedError('NO_REGULAR_FILE', 'a pipe or a device');
  }
  let waiting = 0;
  let problem = 'QUEUE_FULL';
  // After an error, the next line causes another try of all.
  const stream = new sonic.SonicBoom({ fd, maxLength: maxWaitingBytes })
    .on('drop', () => {
      waiting -= 1;
      onDropped(1, problem);
    })
    .on('error', (error) => {
      problem = networkCode(error);
      onDropped(0, problem);
    })
    .on('drain', () => {
      onWritten(waiting);
      [waiting, problem] = [0, 'QUEUE_FULL'];
    });
  return {
    inode: stats.ino,
    device: stats.dev,
    write(line) {
      waiting += 1;
      stream.write(line);
    },
    async [Symbol.asyncDispose]() {
      const { promise: isWritten, resolve } = Promise.withResolvers<boolean>();
      const disarm = clock.schedule(closeWithinMs, () => resolve(false));
      stream.once('close', () => resolve(true)).end();
      if (await isWritten) onWritten(waiting);
      else onDropped(waiting, problem);
      disarm();
      stream.destroy();
    },
  };
}
