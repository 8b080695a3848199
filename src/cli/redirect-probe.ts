/**
 * `nmi redirect probe`: what this node supports of each redirect mode, and which one `auto`
 * selects. Changes nothing. Exit code 0 means that pods can be redirected here.
 */
import { chooseRedirect } from '../nmi/kernel/choose-redirect.ts';
import type { Config } from '../nmi/config/config.ts';
import { probeEbpf, summariseFindings, type Finding } from '../redirect/ebpf/probe.ts';
import { probeIptables } from '../redirect/iptables/probe.ts';
import type { RedirectMode } from '../redirect/redirect.ts';
import { exitCodes, type Io } from './io.ts';

interface ModeReport {
  readonly mode: RedirectMode;
  readonly support: Finding['support'];
  readonly findings: readonly Finding[];
}

interface ProbeReport {
  readonly works: boolean;
  readonly auto: { readonly mode: RedirectMode; readonly why: string };
  readonly modes: readonly ModeReport[];
}

export async function probeRedirect(
  config: Config,
  output: 'text' | 'json',
  io: Io,
): Promise<number> {
  const { cgroupRoot, bpfPinFolder } = config;
  const ebpf = probeEbpf({ pinFolder: bpfPinFolder, ...(cgroupRoot === '' ? {} : { cgroupRoot }) });
  const modes: readonly ModeReport[] = [
    { mode: 'ebpf', support: summariseFindings(ebpf), findings: ebpf },
    { mode: 'iptables', ...(await probeIptables()) },
  ];
  const { redirect, why } = chooseRedirect({ ...config, redirect: 'auto' });
  const chosen = modes.find(({ mode }) => mode === redirect.mode);
  const isImpossible = chosen?.support === 'unsupported';
  const report: ProbeReport = {
    works: modes.some(({ support }) => support === 'supported'),
    auto: isImpossible
      ? { mode: 'none', why: `${why}; ${redirect.mode} is not supported either` }
      : { mode: redirect.mode, why },
    modes,
  };
  io.stdout(output === 'json' ? `${JSON.stringify(report, undefined, 2)}\n` : render(report));
  return report.works ? exitCodes.ok : exitCodes.failed;
}

function render({ works, auto, modes }: ProbeReport): string {
  const lines = modes.flatMap(({ mode, support, findings }) => [
    `${mode}: ${support}`,
    ...findings.map(
      ({ part, support: of, detail }) => `  ${part.padEnd(34)} ${of.padEnd(11)} ${detail}`,
    ),
  ]);
  const verdict = works ? '' : 'no way of redirecting is known to work here\n';
  return `${lines.join('\n')}\nauto: ${auto.mode} (${auto.why})\n${verdict}`;
}
