/** gVisor for containerd: `runsc` and its shim, built from its module. */
import {
  providePrograms,
  type GoRecipe,
  type Provided,
} from '../../cluster/support/go-programs.ts';

const recipe: GoRecipe = {
  name: 'gvisor',
  module: {
    path: 'gvisor.dev/gvisor',
    version: 'v0.0.0-20260905035102-160fafc42237',
    sum: 'h1:AU5+CtCvnBnxdZRNcZt1NfSLqgkXZVT3N/u6u1aXg44=',
  },
  programs: {
    runsc: 'gvisor.dev/gvisor/runsc',
    'containerd-shim-runsc-v1': 'gvisor.dev/gvisor/shim',
  },
  patches: [
    {
      // On this machine no process may lower an OOM score.
      module: 'github.com/containerd/containerd/v2',
      file: 'pkg/sys/oom_linux.go',
      before: 'if os.IsPermission(err) && (!runningPrivileged() || userns.RunningInUserNS()) {',
      after: 'if os.IsPermission(err) || !runningPrivileged() || userns.RunningInUserNS() {',
    },
  ],
};

/** The folder of both programs. */
export function provideGvisor(): Provided<string> {
  return providePrograms('gVisor', recipe, 'node', (folder) => folder);
}
