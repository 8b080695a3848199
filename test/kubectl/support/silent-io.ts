/** A machine that only runs programs. */
import type { Io } from '../../../src/kubectl/base/io.ts';

export function createIo(run: Io['run']): Io {
  return {
    environment: {},
    stdout: () => undefined,
    stderr: () => undefined,
    run,
    readText: () => Promise.resolve(undefined),
    wallMs: () => 0,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  };
}
