import { whyNoPrograms } from '../../redirect/cgroup-fixture.ts';
import { fabricSkip } from './fabric-pod.ts';

/** Why eBPF cannot be tried on this machine, or `false`. */
export function whyNoEbpf(): string | false {
  return fabricSkip === false ? whyNoPrograms() : fabricSkip;
}
