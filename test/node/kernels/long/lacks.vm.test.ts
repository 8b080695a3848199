/** The redirect on a kernel that lacks one module that it uses, or has another restriction. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { describeOnKernel, outputOf } from '../support/suite.ts';

/** What it lacks, the kernel's parameters, and what `install` prints by `auto` and by iptables; undefined where it is refused. */
type Case = readonly [
  lacks: string,
  parameters: readonly string[],
  auto: RegExp | undefined,
  iptables: RegExp | undefined,
];

const without = (...modules: readonly string[]) => [`module_blacklist=${modules.join()}`];
const ebpf = /^ebpf: active .*behind it iptables nft;/;
const nft = /^iptables: active \(iptables nft;/;
const ebpfBeforeLegacy = /^ebpf: active .*behind it iptables legacy;/;
const legacy = /^iptables: active \(iptables legacy;/;
const ebpfAlone = /^ebpf: active .*; guard on; no netfilter behind it: /;

const cases: readonly Case[] = [
  ['IPv6', ['ipv6.disable=1'], ebpf, nft],
  ['leave to change the kernel', ['lockdown=confidentiality'], ebpf, nft],
  [
    'dummy links',
    without('dummy'),
    /^ebpf: active .* on nmi0 \(bridge\);/,
    /^iptables: active .* on nmi0 \(bridge\);/,
  ],
  ['dummy links and bridges', without('dummy', 'bridge'), undefined, undefined],
  ['legacy iptables', without('ip_tables'), ebpf, nft],
  ['nf_tables', without('nf_tables'), ebpfBeforeLegacy, legacy],
  ['what iptables needs to write nft', without('nft_compat'), ebpfAlone, undefined],
  ['both iptables', without('nf_tables', 'ip_tables'), ebpfAlone, undefined],
  [
    'the list of tracked connections',
    without('nf_conntrack_netlink'),
    ebpf,
    /^iptables: active .*; older flows not cut: /,
  ],
  [
    'the list of sockets',
    without('tcp_diag', 'inet_diag'),
    /^ebpf: active .*; older sockets not closed: /,
    nft,
  ],
];

const modes = ['auto', 'iptables'] as const;
const script = `
  nmi() { dist/nmi redirect "$@"; }
  for mode in ${modes.join(' ')}; do
    for action in install verify remove; do check "$action $mode" nmi "$action" --redirect="$mode"; done
  done
  check modules lsmod
`;

for (const [lacks, parameters, auto, iptables] of cases) {
  const expected = { auto, iptables };
  describeOnKernel(
    '6.12',
    `a kernel that lacks ${lacks},`,
    () => ({ script, parameters }),
    (run) => {
      for (const mode of modes) {
        const wanted = expected[mode];
        it(`${wanted === undefined ? 'refuses' : 'is redirected by'} --redirect=${mode}`, () => {
          const install = `install ${mode}`;
          if (wanted === undefined) {
            const { code, output = '' } = run().checks.get(install) ?? {};
            assert.ok(code === 1 || code === 69, output);
            assert.match(output, /UNSUPPORTED/);
            return;
          }
          assert.match(outputOf(run(), install), wanted);
          // Only the process that installed has found that netfilter cannot be written.
          if (wanted !== ebpfAlone) outputOf(run(), `verify ${mode}`);
        });

        it(`is opened again by remove, with --redirect=${mode}`, () => {
          outputOf(run(), `remove ${mode}`);
        });
      }
    },
  );
}
