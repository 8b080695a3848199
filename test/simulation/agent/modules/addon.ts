/** In place of the native module's loader: sockets that are passed on, and the links of pods. */
import type { NativeModule } from '../../../../src/redirect/native/addon.ts';
import { nativeModule as handover } from '../../modules/addon.ts';
import { currentKernel } from '../kernel.ts';

export * from '../../../../src/redirect/native/addon.ts';

const links = {
  placeOf: (ip: string) => {
    const link = currentKernel().linkOf(ip);
    return link === undefined ? undefined : { link };
  },
  ownsLink: (ip: string) => currentKernel().linkOf(ip) !== undefined,
  hasLink: (link: number) => currentKernel().hasLink(link),
  trimMemory: () => true,
} satisfies Partial<NativeModule>;

export function nativeModule(): NativeModule {
  return { ...handover(), ...links };
}

export function inKernel<T>(work: (native: NativeModule) => T): T {
  return work(nativeModule());
}
