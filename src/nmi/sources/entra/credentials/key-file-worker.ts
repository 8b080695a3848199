/** The program of the worker that opens key files: a separate bundle in the executable. */
import { parentPort } from 'node:worker_threads';
import { KeyFileError } from './key-file-error.ts';
import { openKeyFile, type KeyFile } from './key-file.ts';

parentPort?.on('message', (file: KeyFile) => {
  try {
    parentPort?.postMessage(openKeyFile(file));
  } catch (error) {
    // Any other error quotes the input on which it failed.
    const { code, message } =
      error instanceof KeyFileError ? error : new KeyFileError('MALFORMED', 'cannot be read');
    parentPort?.postMessage({ code, message });
  }
});
