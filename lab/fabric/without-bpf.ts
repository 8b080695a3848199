/** The seccomp rule that container runtimes put on a container without CAP_BPF. */
import { fileURLToPath } from 'node:url';

/** Starts the program in its arguments, for which bpf(2) then fails with EPERM. */
export const withoutBpf = fileURLToPath(
  new URL('../../dist/lab/fabric/without-bpf', import.meta.url),
);
