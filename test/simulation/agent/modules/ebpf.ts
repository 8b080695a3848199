/** In place of src/redirect/ebpf/ebpf.ts: the port of the redirect, on the model of a kernel. */
import type { EbpfRedirect, EbpfRedirectOptions } from '../../../../src/redirect/ebpf/ebpf.ts';
import type { RedirectStatus } from '../../../../src/redirect/redirect.ts';
import { currentProcess } from '../../machine.ts';
import { currentKernel } from '../kernel.ts';

export function openEbpfRedirect({ target }: EbpfRedirectOptions): EbpfRedirect {
  const kernel = currentKernel();
  const owner = currentProcess();
  const pass = (): Promise<void> =>
    new Promise((resolve) => {
      owner.after(owner.machine.latencyMs(), 'kernel call', resolve);
    });
  const status = (changed?: readonly string[]): RedirectStatus => {
    const detail = 'simulated programs';
    const more = changed === undefined ? {} : { changed };
    if (kernel.isRedirected && kernel.drift === undefined) {
      return { state: 'active', detail, problems: [], ...more };
    }
    const problems = [kernel.drift ?? 'no programs'];
    return { state: kernel.isRedirected ? 'broken' : 'absent', detail, problems, ...more };
  };
  return {
    mode: 'ebpf',
    prepare: async () => {
      await pass();
      kernel.machine.addresses.add(target?.listenIp ?? '');
    },
    install: async () => {
      await pass();
      kernel.install();
      await pass();
      return status(['installed']);
    },
    verify: async () => {
      await pass();
      return status();
    },
    isFrontWhole: () => Promise.resolve(false),
    remove: async () => {
      await pass();
      kernel.remove();
    },
    letThrough: async (ids) => {
      await pass();
      kernel.letThrough = new Set(ids);
    },
    attest: ({ remoteIp, remotePort }) => kernel.attest(remoteIp, remotePort),
    counters: () => undefined,
    countFallbackConnections: () => Promise.resolve(undefined),
  };
}
