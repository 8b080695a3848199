/** In place of src/redirect/cgroup/cgroup-tree.ts: the cgroups of a simulated node. */
import { currentKernel } from '../kernel.ts';

export * from '../../../src/redirect/cgroup/cgroup-tree.ts';

export function findCgroupRoot(): string {
  return '/cgroups';
}

export function findPodsRoot(): string {
  return '/cgroups/pods';
}

export function podCgroupId(_root: string, podUid: string): bigint | undefined {
  return currentKernel().cgroupOf(podUid);
}
