/**
 * Tests of the redirect that need a kernel, on the oldest and the newest one, with their features. Who called is
 * asked on every kernel, in a group of net_cls: kernels as they were before 5.15 then take each socket's cgroup for
 * the root, and run no program of another one for it.
 */
import { globSync } from 'node:fs';
import { dirname } from 'node:path';
import { it } from 'node:test';
import { repositoryRoot } from '../../../conventions/tree.ts';
import { kernelSources } from '../support/debian-kernels.ts';
import { describeOnKernel, outputOf } from '../support/suite.ts';

const files = globSync(
  ['test/kernel/redirect/**/*.kernel.test.ts', 'test/kernel/deploy/image-root.kernel.test.ts'],
  {
    cwd: repositoryRoot,
  },
).sort();

/** A fresh node has no legacy iptables module; these tests make tables of legacy iptables. */
const ordinary = `
  modprobe iptable_nat
  modprobe iptable_mangle
`;
const withNetCls = `
  mkdir /run/net_cls
  mount -t cgroup -o net_cls net_cls /run/net_cls
  mkdir /run/net_cls/node
  echo 1 >/run/net_cls/node/net_cls.classid
  echo $BASHPID >/run/net_cls/node/cgroup.procs
  check group grep net_cls:/node /proc/self/cgroup
`;
const script = (node: string, file: string) => `
  ${node}
  export PATH='${dirname(process.execPath)}':$PATH
  check test node --test --test-reporter=spec '${file}'
`;

const runs = [
  ...files.flatMap((file) =>
    (['5.10', 'newest'] as const).map((name) => ({ name, file, node: ordinary })),
  ),
  ...kernelSources.map(({ name }) => ({
    name,
    file: 'test/kernel/redirect/ebpf/caller-of-socket.kernel.test.ts',
    node: withNetCls,
  })),
];

for (const { name, file, node } of runs) {
  const title = node === withNetCls ? `${file}, with net_cls in use,` : file;
  describeOnKernel(
    name,
    title,
    () => ({ script: script(node, file) }),
    (run) => {
      it('passes', () => {
        if (node === withNetCls) outputOf(run(), 'group');
        outputOf(run(), 'test');
      });
    },
  );
}
