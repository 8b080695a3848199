import { findCgroupRoot } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { nativeModule } from '../../../src/redirect/native/addon.ts';
import { fabricSkip } from './fabric-pod.ts';

/** Why eBPF cannot be tried on this machine, or `false`. */
export function whyNoEbpf(): string | false {
  if (fabricSkip !== false) return fabricSkip;
  try {
    findCgroupRoot();
    const refused = Object.entries(nativeModule().probe()).filter(([, errno]) => errno !== 0);
    return refused.length === 0 ? false : `the kernel refuses ${refused.join(', ')}`;
  } catch (error) {
    return error instanceof Error ? error.message : 'no eBPF';
  }
}
