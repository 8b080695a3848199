/**
 * Opens key files on a thread of its own: a file may take seconds, and the author of an identity
 * chooses it. Files are opened one at a time, and namespaces take turns. The worker ends after the
 * last waiting file; one that a file breaks is replaced. A file is sent to the worker and nowhere
 * else.
 */
import { once } from 'node:events';
import { getAsset, isSea } from 'node:sea';
import { Worker } from 'node:worker_threads';
import { FairQueue } from '../../../../base/fair-queue.ts';
import { asRecord, stringAt } from '../../../../base/json-value.ts';
import type { OpenedCertificate } from './descriptor.ts';
import { KeyFileError, keyFileErrorCodes } from './key-file-error.ts';
import type { KeyFile } from './key-file.ts';

/** @param owner a namespace. Rejects with `KeyFileError`. */
export type KeyFileOpener = (owner: string, file: KeyFile) => Promise<OpenedCertificate>;

export interface KeyFileOpenerOptions {
  readonly start?: () => Worker;
  /** For one file: the most work that `pfx.ts` accepts takes 4 s of an idle processor. */
  readonly timeoutMs?: number;
  /** Most waiting files of one owner. */
  readonly maxWaiting?: number;
}

interface Job {
  readonly file: KeyFile;
  readonly opened: PromiseWithResolvers<OpenedCertificate>;
}

export function createKeyFileOpener({
  start = startWorker,
  timeoutMs = 10_000,
  maxWaiting = 100,
}: KeyFileOpenerOptions = {}): KeyFileOpener {
  const waiting = new FairQueue<Job>();
  let isWorking = false;

  async function work(): Promise<void> {
    isWorking = true;
    let worker: Worker | undefined;
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      try {
        // The waiter for a reply gets the error; without one it must not end the process.
        worker ??= start().on('error', () => undefined);
        // A copy: other data in the same memory is not sent.
        worker.postMessage({ ...job.file, bytes: Uint8Array.from(job.file.bytes) });
        const signal = AbortSignal.timeout(timeoutMs);
        const replies: unknown[] = await once(worker, 'message', { signal });
        job.opened.resolve(readReply(replies[0]));
      } catch (error) {
        job.opened.reject(error instanceof KeyFileError ? error : explain(error));
        if (error instanceof KeyFileError) continue;
        void worker?.terminate();
        worker = undefined;
      }
    }
    void worker?.terminate();
    isWorking = false;
  }

  return async (owner, file) => {
    const party = { namespace: owner, pod: '' };
    if (waiting.sizeOf(party) >= maxWaiting) {
      throw new KeyFileError('BUSY', 'waits behind too many others of its namespace');
    }
    const opened = Promise.withResolvers<OpenedCertificate>();
    waiting.add({ file, opened }, party);
    if (!isWorking) void work();
    return opened.promise;
  };
}

/**
 * Measured in the executable: 110 ms of processor from a start to the first reply, 15 ms for each
 * further file; 22 MB more while it runs, of which the C library keeps 15 to 18 for the next one
 * (Node 26.10, 2 cores under load, November 2026).
 */
function startWorker(): Worker {
  const options = {
    argv: [],
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 8 },
  };
  return isSea()
    ? new Worker(getAsset('key-file-worker.cjs', 'utf8'), { ...options, eval: true })
    : new Worker(new URL('./key-file-worker.ts', import.meta.url), options);
}

/** @throws KeyFileError as sent by the worker, or Error for what the worker never sends. */
function readReply(reply: unknown): OpenedCertificate {
  const record = asRecord(reply);
  const code = keyFileErrorCodes.find((each) => each === record?.['code']);
  if (code !== undefined) throw new KeyFileError(code, stringAt(record, 'message'));
  const texts = ['thumbprintSha256', 'privateKey', 'x5c'].map((name) => stringAt(record, name));
  const [thumbprintSha256 = '', privateKey = '', x5c = ''] = texts;
  const expiresAtWallMs = record?.['expiresAtWallMs'];
  if (texts.includes('') || typeof expiresAtWallMs !== 'number') throw new Error('not a reply');
  return { thumbprintSha256, privateKey, x5c, expiresAtWallMs };
}

/** Why there is no reply. The error itself is not shown: it may quote the file's content. */
function explain(error: unknown): KeyFileError {
  switch (error instanceof Error && 'code' in error ? error.code : undefined) {
    case 'ABORT_ERR':
      return new KeyFileError(
        'TOO_COSTLY',
        'takes too much time to open; export it again with 10000 iterations or fewer',
      );
    case 'ERR_WORKER_OUT_OF_MEMORY':
      return new KeyFileError('TOO_COSTLY', 'takes too much memory to open');
    case 'ERR_WORKER_INIT_FAILED':
      return new KeyFileError('BUSY', 'waits for a thread that it can be opened on');
    default:
      return new KeyFileError('MALFORMED', 'cannot be read');
  }
}
