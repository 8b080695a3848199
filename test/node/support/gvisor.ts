/** gVisor for containerd: `runsc` and its shim, built from its module. */
import {
  providePrograms,
  type GoRecipe,
  type Provided,
} from '../../cluster/support/go-programs.ts';

/** On this machine no process may lower an OOM score. */
const patches = [
  {
    module: 'github.com/containerd/containerd/v2',
    file: 'pkg/sys/oom_linux.go',
    before: 'if os.IsPermission(err) && (!runningPrivileged() || userns.RunningInUserNS()) {',
    after: 'if os.IsPermission(err) || !runningPrivileged() || userns.RunningInUserNS() {',
  },
];

const recipe: GoRecipe = {
  module: 'gvisor',
  programs: {
    runsc: 'gvisor.dev/gvisor/runsc',
    'containerd-shim-runsc-v1': 'gvisor.dev/gvisor/shim',
  },
  stamps: () => [],
  patches,
};

/** The folder of both programs. */
export function provideGvisor(): Provided<string> {
  return providePrograms('gVisor', recipe, 'node', (folder) => folder);
}
