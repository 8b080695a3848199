/** In place of src/redirect/ebpf/ebpf.ts: the port of the redirect, on the model of a kernel. */
import type { EbpfRedirect, EbpfRedirectOptions } from '../../../src/redirect/ebpf/ebpf.ts';
import type { RedirectStatus } from '../../../src/redirect/redirect.ts';
import { currentProcess } from '../machine.ts';
import { currentKernel } from '../kernel.ts';

export function openEbpfRedirect(options: EbpfRedirectOptions): EbpfRedirect {
  const { target, ownPodUid = '', otherAgents = () => [] } = options;
  const kernel = currentKernel();
  const owner = currentProcess();
  const { machine } = owner;
  const version = kernel.versionOf(owner);
  const agent = kernel.agentOf(owner);
  const pass = (longestMs = 0): Promise<void> =>
    new Promise((resolve) => {
      const ms = machine.latencyMs() + machine.scheduler.random() * longestMs;
      owner.after(ms, 'kernel call', resolve);
    });
  const wantedExempt = (): ReadonlySet<bigint> =>
    new Set([kernel.cgroupOf(ownPodUid), ...otherAgents()].filter((id) => id !== undefined));
  const findProblems = (): readonly string[] => {
    const wanted = wantedExempt();
    return [
      ...(kernel.drift === undefined ? [] : [kernel.drift]),
      ...(kernel.version === version ? [] : ['programs of another version']),
      ...(wanted.symmetricDifference(kernel.exempt).size === 0 ? [] : ['other cgroups are exempt']),
    ];
  };
  const status = (changed?: readonly string[]): RedirectStatus => {
    const detail = 'simulated programs';
    const more = changed === undefined ? {} : { changed };
    if (!kernel.isRedirected)
      return { state: 'absent', detail, problems: ['no programs'], ...more };
    const problems = findProblems();
    const state = problems.length === 0 ? 'active' : 'broken';
    return { state, detail, problems, port: kernel.port, ...more };
  };
  return {
    mode: 'ebpf',
    prepare: async () => {
      await pass();
      machine.addresses.add(target?.listenIp ?? '');
      kernel.exempt = new Set([...kernel.exempt, ...wantedExempt()]);
      kernel.join(agent, version);
    },
    install: async (port) => {
      await pass(kernel.longestInstallMs);
      const before = kernel.isRedirected ? kernel.port : target?.listenPort;
      kernel.install(agent, port ?? before ?? 0, version, wantedExempt());
      kernel.onInstalled(owner);
      await pass();
      return status(['installed']);
    },
    verify: async () => {
      await pass();
      return status();
    },
    isFrontWhole: async (port) => {
      await pass();
      return kernel.isRedirected && kernel.port === port && findProblems().length === 0;
    },
    remove: async () => {
      await pass();
      kernel.remove();
    },
    letThrough: async (ids) => {
      await pass();
      kernel.letThrough = new Set(ids);
    },
    counters: () => undefined,
  };
}
