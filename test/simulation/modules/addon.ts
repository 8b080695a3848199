/** In place of the native module's loader: locks of files, sockets that listen, and the links of pods. */
import type { NativeModule } from '../../../src/redirect/native/addon.ts';
import { currentProcess } from '../machine.ts';
import { currentKernel } from '../kernel.ts';

export * from '../../../src/redirect/native/addon.ts';

const simulated = {
  lockFile: (path: string) => {
    const owner = currentProcess();
    const lock = owner.machine.lock(path);
    return lock === undefined ? undefined : owner.open(lock);
  },
  isLocked: (path: string) => currentProcess().machine.isLocked(path),
  isListening: (ip: string, port: number) => currentProcess().machine.isListening(ip, port),
  placeOf: (ip: string) => {
    const link = currentKernel().linkOf(ip);
    return link === undefined ? undefined : { link };
  },
  ownsLink: (ip: string) => currentKernel().linkOf(ip) !== undefined,
  hasLink: (link: number) => currentKernel().hasLink(link),
  callerOf: (socket: number) => {
    const kernel = currentKernel();
    return kernel.callerOf(kernel.agentOf(currentProcess()), socket);
  },
  isAnswered: () => {
    const kernel = currentKernel();
    return kernel.isAnswered(kernel.agentOf(currentProcess()));
  },
  isLocal: () => true,
  trimMemory: () => true,
} satisfies Partial<NativeModule>;

export function nativeModule(): NativeModule {
  return simulated as unknown as NativeModule;
}

export function inKernel<T>(work: (native: NativeModule) => T): T {
  return work(nativeModule());
}
