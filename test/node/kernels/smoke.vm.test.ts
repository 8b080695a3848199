/**
 * The redirect on other kernels: what `auto` chooses, and each mode installed, verified and removed,
 * by root of the node and by the image with the DaemonSet's capabilities.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { readPodSpec } from '../../cluster/chart/chart-render.ts';
import { describeOnKernel, kernelNames, makeImageRoot, outputOf } from './support/suite.ts';

/** An installation reads itself back. Each start takes ten seconds on an emulated processor. */
const actions = ['install', 'remove'] as const;
const modes = ['auto', 'iptables'] as const;

/** Only a test of legacy iptables loads its module; a fresh node has none. */
const script = (root: string, capabilities: string) => `
  nmi() { dist/nmi redirect "$@"; }
  # Before Linux 5.11 maps count as locked memory; this is what systemd lets a service have.
  ulimit -l 8192
  in_image() {
    env -i PATH=/bin:/sbin:/usr/bin:/usr/sbin setpriv --bounding-set='-all,${capabilities}' \\
      --inh-caps=-all -- chroot '${root}' nmi redirect "$@"
  }
  no_legacy_module() { [[ ! -e /proc/net/ip_tables_names ]]; }
  for mode in ${modes.join(' ')}; do
    for action in ${actions.join(' ')}; do
      check "$action $mode" nmi "$action" --redirect="$mode"
    done
  done
  mount -t proc proc '${root}/proc'
  mount --rbind /sys '${root}/sys'
  # The chain that shows which backend the kubelet uses.
  iptables-nft -t mangle -N KUBE-IPTABLES-HINT
  for action in install verify remove; do
    check "$action in the image" in_image "$action"
  done
  check 'legacy module' no_legacy_module
  check 'link' ip link show
  check 'nat' iptables-nft-save -t nat
`;

const root = mkdtempSync(join(tmpdir(), 'nmi-test-image-'));
after(() => {
  rmSync(root, { recursive: true, force: true });
});

async function plan(): Promise<{ script: string }> {
  const folder = mkdtempSync(join(root, 'of-'));
  makeImageRoot(folder);
  const { containers } = await readPodSpec('nmi.yaml');
  const granted = containers[0]?.securityContext.capabilities.add ?? [];
  // chroot itself takes the last.
  const capabilities = [...granted, 'sys_chroot'].map((each) => `+${each.toLowerCase()}`);
  return { script: script(folder, capabilities.join(',')) };
}

for (const name of kernelNames) {
  describeOnKernel(name, 'the redirect', plan, (run) => {
    for (const mode of modes) {
      it(`is installed and removed with --redirect=${mode}`, () => {
        const [installed] = actions.map((action) => outputOf(run(), `${action} ${mode}`));
        assert.match(installed ?? '', mode === 'iptables' ? /^iptables: active/ : /^ebpf: active/);
      });
    }

    it('is installed, verified and removed by the image', () => {
      const [installed] = ['install', 'verify', 'remove'].map((action) =>
        outputOf(run(), `${action} in the image`),
      );
      // Linux 5.10 lets a program compare pointers only with CAP_PERFMON, which the image does not have.
      const active =
        name === '5.10' ? /^iptables: active/ : /^ebpf: active .*behind it iptables nft;/;
      assert.match(installed ?? '', active);
    });

    it('leaves the node unchanged, without the module of legacy iptables', () => {
      outputOf(run(), 'legacy module');
      assert.doesNotMatch(outputOf(run(), 'link'), /nmi0/);
      assert.doesNotMatch(outputOf(run(), 'nat'), /nmi-metadata/);
    });
  });
}
