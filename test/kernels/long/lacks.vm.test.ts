/** The redirect on a kernel that lacks one module that it uses, or has another restriction. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import type { GuestRun } from '../support/machine.ts';
import { findKernel, outputOf, runWhole } from '../support/suite.ts';

interface Case {
  readonly lacks: string;
  readonly parameters: readonly string[];
  /** The output of `install`; undefined where it is refused. */
  readonly auto: RegExp | undefined;
  readonly iptables: RegExp | undefined;
}

const without = (...modules: readonly string[]) => [`module_blacklist=${modules.join()}`];
const ebpf = /^ebpf: active .*behind it iptables nft;/;
const nft = /^iptables: active \(iptables nft;/;
const ebpfBeforeLegacy = /^ebpf: active .*behind it iptables legacy;/;
const legacy = /^iptables: active \(iptables legacy;/;
const ebpfAlone = /^ebpf: active .*; guard on; no netfilter behind it: /;

const cases: readonly Case[] = [
  { lacks: 'IPv6', parameters: ['ipv6.disable=1'], auto: ebpf, iptables: nft },
  {
    lacks: 'leave to change the kernel',
    parameters: ['lockdown=confidentiality'],
    auto: ebpf,
    iptables: nft,
  },
  {
    lacks: 'dummy links',
    parameters: without('dummy'),
    auto: /^ebpf: active .* on nmi0 \(bridge\);/,
    iptables: /^iptables: active .* on nmi0 \(bridge\);/,
  },
  {
    lacks: 'dummy links and bridges',
    parameters: without('dummy', 'bridge'),
    auto: undefined,
    iptables: undefined,
  },
  { lacks: 'legacy iptables', parameters: without('ip_tables'), auto: ebpf, iptables: nft },
  {
    lacks: 'nf_tables',
    parameters: without('nf_tables'),
    auto: ebpfBeforeLegacy,
    iptables: legacy,
  },
  {
    lacks: 'what iptables needs to write nft',
    parameters: without('nft_compat'),
    auto: ebpfAlone,
    iptables: undefined,
  },
  {
    lacks: 'both iptables',
    parameters: without('nf_tables', 'ip_tables'),
    auto: ebpfAlone,
    iptables: undefined,
  },
  {
    lacks: 'the list of tracked connections',
    parameters: without('nf_conntrack_netlink'),
    auto: ebpf,
    iptables: /^iptables: active .*; older flows not cut: /,
  },
  {
    lacks: 'the list of sockets',
    parameters: without('tcp_diag', 'inet_diag'),
    auto: /^ebpf: active .*; older sockets not closed: /,
    iptables: nft,
  },
];

const modes = ['auto', 'iptables'] as const;
const script = `
  nmi() { dist/nmi redirect "$@"; }
  for mode in ${modes.join(' ')}; do
    for action in install verify remove; do check "$action $mode" nmi "$action" --redirect="$mode"; done
  done
  check modules lsmod
`;

const kernel = findKernel('6.12');
const skip = typeof kernel === 'string' ? kernel : false;

for (const { lacks, parameters, ...expected } of cases) {
  describe(`a kernel that lacks ${lacks}`, { skip }, () => {
    let run: GuestRun;

    before(async () => {
      assert.ok(typeof kernel !== 'string');
      run = await runWhole(kernel, script, { parameters });
    });

    for (const mode of modes) {
      const wanted = expected[mode];
      it(`${wanted === undefined ? 'refuses' : 'is redirected by'} --redirect=${mode}`, () => {
        const install = `install ${mode}`;
        if (wanted === undefined) {
          const { code, output = '' } = run.checks.get(install) ?? {};
          assert.ok(code === 1 || code === 69, output);
          assert.match(output, /UNSUPPORTED/);
          return;
        }
        assert.match(outputOf(run, install), wanted);
        // Only the process that installed has found that netfilter cannot be written.
        if (wanted !== ebpfAlone) outputOf(run, `verify ${mode}`);
      });

      it(`is opened again by remove, with --redirect=${mode}`, () => {
        outputOf(run, `remove ${mode}`);
      });
    }
  });
}
