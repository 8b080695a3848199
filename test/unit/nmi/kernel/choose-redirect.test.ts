import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, mock } from 'node:test';
import { parseConfig, type Config } from '../../../../src/nmi/config/config.ts';
import { chooseRedirect } from '../../../../src/nmi/kernel/kernel.ts';
import { nativeModule } from '../../../../src/redirect/native/addon.ts';
import { freshNative } from '../../../../scripts/native.ts';
import { nativeFailure, openFakeKernel } from '../../../support/fake-kernel.ts';
import { pretendFileSystem } from '../../../support/replaced-fs.ts';

function configOf(flags: Readonly<Record<string, string>>): Config {
  const parsed = parseConfig({ node: 'n', ...flags }, {});
  assert.ok(parsed.ok, JSON.stringify(parsed));
  return parsed.config;
}

/** A node whose kernel takes the programs or fails with this code, a cgroup tree, and a directory for pins. */
function choose(
  redirect: string,
  { refusal = '', hasPods = true, hasTree = true, canPin = true } = {},
) {
  using tree = pretendFileSystem('cgroup2');
  using pins = pretendFileSystem('bpf');
  if (hasPods) mkdirSync(join(tree.path, 'kubepods.slice'));
  freshNative();
  openFakeKernel();
  if (refusal !== '') {
    mock.method(nativeModule(), 'load', () => {
      throw nativeFailure(refusal, 'load');
    });
  }
  try {
    const config = {
      ...configOf({ redirect }),
      cgroupRoot: hasTree ? tree.path : '/nothing/here',
      bpfPinFolder: canPin ? join(pins.path, 'nmi') : '/nothing/here/nmi',
    };
    const { redirect: chosen, why, programs } = chooseRedirect(config);
    return { mode: chosen.mode, why, counts: programs !== undefined };
  } finally {
    mock.restoreAll();
  }
}

describe('the redirect of a configuration', () => {
  it('is the configured one', () => {
    for (const mode of ['none', 'iptables'] as const) {
      const plain = { mode, why: 'chosen by --redirect', counts: false };
      assert.deepEqual(choose(mode), plain);
    }
    const ebpf = { mode: 'ebpf', why: 'chosen by --redirect', counts: true };
    for (const hasTree of [true, false]) assert.deepEqual(choose('ebpf', { hasTree }), ebpf);
    assert.throws(() => choose('pinned'), { code: 'NOT_PERMITTED' });
  });
});

describe('the automatic redirect', () => {
  const iptables = (why: string) => ({
    mode: 'iptables',
    why: `no eBPF: ${why}`,
    counts: false,
  });

  it('is eBPF if all requirements are met', () => {
    const { mode, why, counts } = choose('auto');
    assert.deepEqual([mode, counts], ['ebpf', true]);
    assert.match(why, /^the kernel has eBPF for cgroups/);
  });

  it('is iptables otherwise, with the missing requirements', () => {
    const tree = choose('auto', { hasTree: false });
    assert.match(tree.why, /^no eBPF: find cgroups: no cgroup2 tree is at \/nothing\/here/);
    assert.equal(tree.mode, 'iptables');
    const pods = choose('auto', { hasPods: false });
    assert.match(pods.why, /^no eBPF: no pods in the cgroup2 tree at /);
    assert.deepEqual(
      choose('auto', { refusal: 'EINVAL' }),
      iptables('the kernel refuses the programs: load: EINVAL'),
    );
    const forbidden = choose('auto', { refusal: 'EPERM' });
    assert.match(forbidden.why, /^no eBPF: bpf\(2\) is not permitted: it takes CAP_BPF/);
    const pins = choose('auto', { canPin: false });
    assert.match(pins.why, /^no eBPF: .*no BPF file system is mounted at \/nothing\/here$/);
  });
});
