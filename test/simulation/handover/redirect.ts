/** The redirect in the kernel of the simulated node: the programs of one version, and the pods that they exempt. */
import type { Redirect, RedirectStatus } from '../../../src/redirect/redirect.ts';

export interface NodeKernel {
  /** Undefined before the first installation. */
  version: number | undefined;
  readonly exempt: Set<string>;
}

export interface Installer {
  readonly kernel: NodeKernel;
  readonly podName: string;
  readonly version: number;
  /** The exempt pods of an earlier holder then stay exempt. */
  readonly hasPredecessor: () => boolean;
  /** Until the kernel or a tool has answered. */
  readonly pass: (longestMs: number) => Promise<void>;
}

const readMs = 50;
const installMs = 1_500;

export function openRedirect(installer: Installer): Redirect {
  const { kernel, podName, version, hasPredecessor, pass } = installer;
  const readBack = (): RedirectStatus => {
    const detail = 'simulated programs';
    if (kernel.version === undefined) {
      return { state: 'absent', detail, problems: ['no programs installed'] };
    }
    const others = hasPredecessor() ? [] : [...kernel.exempt].filter((name) => name !== podName);
    const problems = [
      ...(kernel.version === version ? [] : ['programs of another version']),
      ...(kernel.exempt.has(podName) ? [] : [`${podName} is not exempt`]),
      ...others.map((name) => `${name} is exempt`),
    ];
    return { state: problems.length === 0 ? 'active' : 'broken', detail, problems };
  };
  return {
    mode: 'ebpf',
    prepare: async () => {
      await pass(readMs);
      if (kernel.version !== undefined) kernel.exempt.add(podName);
    },
    install: async () => {
      await pass(installMs);
      kernel.version = version;
      if (!hasPredecessor()) kernel.exempt.clear();
      kernel.exempt.add(podName);
      return readBack();
    },
    verify: async () => {
      await pass(readMs);
      return readBack();
    },
    isFrontWhole: () => Promise.resolve(false),
    remove: () => Promise.reject(new Error('nobody removes the redirect')),
    attest: () => ({ kind: 'by-address' }),
  };
}
