/**
 * The redirect on other kernels: what `auto` chooses, and each mode installed, verified and removed,
 * by root of the node and by the image with the DaemonSet's capabilities.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { readPodSpec } from '../deploy/chart-render.ts';
import { findKernel, kernelNames, makeImageRoot, outputOf, runWhole } from './support/suite.ts';
import type { GuestRun } from './support/machine.ts';

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

for (const name of kernelNames) {
  const kernel = findKernel(name);
  const skip = typeof kernel === 'string' ? kernel : false;
  const title = typeof kernel === 'string' ? name : `${name} (${kernel.version})`;
  describe(`the redirect on Linux ${title}`, { skip }, () => {
    let root = '';
    let run: GuestRun;

    before(async () => {
      assert.ok(typeof kernel !== 'string');
      root = mkdtempSync(join(tmpdir(), 'nmi-test-image-'));
      makeImageRoot(root);
      const { containers } = await readPodSpec('nmi.yaml');
      const granted = containers[0]?.securityContext.capabilities.add ?? [];
      // chroot itself takes the last.
      const capabilities = [...granted, 'sys_chroot'].map((each) => `+${each.toLowerCase()}`);
      run = await runWhole(kernel, script(root, capabilities.join(',')));
    });
    after(() => {
      rmSync(root, { recursive: true, force: true });
    });

    for (const mode of modes) {
      it(`is installed and removed with --redirect=${mode}`, () => {
        const [installed] = actions.map((action) => outputOf(run, `${action} ${mode}`));
        assert.match(installed ?? '', mode === 'iptables' ? /^iptables: active/ : /^ebpf: active/);
      });
    }

    it('is installed, verified and removed by the image', () => {
      const [installed] = ['install', 'verify', 'remove'].map((action) =>
        outputOf(run, `${action} in the image`),
      );
      // Linux 5.10 lets a program compare pointers only with CAP_PERFMON, which the image does not have.
      const active =
        name === '5.10' ? /^iptables: active/ : /^ebpf: active .*behind it iptables nft;/;
      assert.match(installed ?? '', active);
    });

    it('leaves the node unchanged, without the module of legacy iptables', () => {
      outputOf(run, 'legacy module');
      assert.doesNotMatch(outputOf(run, 'link'), /nmi0/);
      assert.doesNotMatch(outputOf(run, 'nat'), /nmi-metadata/);
    });
  });
}
