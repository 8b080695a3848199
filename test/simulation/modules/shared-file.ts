/** In place of src/nmi/kernel/shared-file.ts: the files of a simulated machine. */
import type { JsonRecord } from '../../../src/base/json-value.ts';
import { currentProcess } from '../machine.ts';

export * from '../../../src/nmi/kernel/shared-file.ts';

export function writeShared(path: string, value: unknown): void {
  currentProcess().machine.shared.write(path, JSON.stringify(value));
}

export function readShared(path: string): JsonRecord | undefined {
  const text = currentProcess().machine.shared.read(path);
  return text === undefined ? undefined : (JSON.parse(text) as JsonRecord);
}

export function watchShared(path: string, onChange: () => void): Disposable {
  const owner = currentProcess();
  const stop = owner.machine.shared.watch(path, () => owner.soon('file change', onChange));
  owner.onEnd.add(stop);
  return { [Symbol.dispose]: stop };
}
