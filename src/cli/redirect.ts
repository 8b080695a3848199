/** `nmi redirect`: the kernel side alone. Only `remove` opens a node again. */
import { systemClock } from '../base/time/clock.ts';
import { startRedirectDaemon } from '../nmi/redirect-daemon.ts';
import { parseConfig, type Config } from '../nmi/config/config.ts';
import { chooseRedirect, type RedirectChoice } from '../nmi/kernel/kernel.ts';
import { removeSlots } from '../nmi/kernel/slots.ts';
import { listOwnPins } from '../redirect/ebpf/programs.ts';
import { removeBootGuard, writeBootGuard } from '../redirect/host/boot-guard.ts';
import { RedirectError } from '../redirect/redirect.ts';
import type { Args } from './flags.ts';
import {
  exitCodes,
  fail,
  failUsage,
  keepAlive,
  reportStartError,
  untilStopped,
  type Io,
} from './io.ts';
import { openProcessLog } from './process-log.ts';

/** The options table requires a node. The ports in the environment are those of the agent. */
const presets = { node: 'unnamed', 'http-probe-port': '0', 'prometheus-port': '0' };

export async function redirect(args: Args, io: Io): Promise<number> {
  const [action] = args.rest;
  const parsed = parseConfig({ ...presets, ...args.flags }, io.environment);
  if (!parsed.ok) return failUsage(io, 'nmi redirect', parsed.problems);
  for (const warning of parsed.warnings) io.stderr(`nmi redirect: warning: ${warning}\n`);
  try {
    if (action === 'run') return await keepRedirect(parsed.config, io);
    if (action === 'remove') return await remove(parsed.config, io);
    if (action === 'guard-boot' || action === 'unguard-boot') {
      return guardBoot(action === 'guard-boot', parsed.config, io);
    }
    using _alive = keepAlive();
    const choice = chooseRedirect(parsed.config);
    return await applyChoice(action === 'install', choice, io);
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    const { code, message } = error;
    const isUnavailable = code === 'NOT_PERMITTED' || code === 'TOOL_MISSING';
    const exitCode = isUnavailable ? exitCodes.unavailable : exitCodes.failed;
    return fail(io, 'redirect', `${code}: ${message}`, exitCode);
  }
}

async function keepRedirect(config: Config, io: Io): Promise<number> {
  const { log } = openProcessLog(config, io);
  using _alive = keepAlive();
  try {
    await using _ = await startRedirectDaemon({ config, clock: systemClock, log });
    await untilStopped(io);
    log.info({}, 'shutting down, redirect stays installed');
    return exitCodes.ok;
  } catch (error) {
    return reportStartError(error, 'redirect cannot be maintained', log, io);
  }
}

function guardBoot(guards: boolean, { bootGuardFolder, metadataIp }: Config, io: Io): number {
  if (bootGuardFolder === '') {
    return fail(io, 'redirect', '--boot-guard-folder is missing', exitCodes.usage);
  }
  if (guards) writeBootGuard(bootGuardFolder, metadataIp);
  else removeBootGuard(bootGuardFolder);
  return exitCodes.ok;
}

/**
 * Without an explicit mode, removes what an agent in any mode may have left, by eBPF or iptables.
 */
async function remove(config: Config, io: Io): Promise<number> {
  const isNamed = config.redirect !== 'auto' && config.redirect !== 'none';
  const { redirect: mode } = chooseRedirect(isNamed ? config : { ...config, redirect: 'ebpf' });
  await mode.remove();
  // No mutation: all this changes the kernel of the machine; the chart's removal on a real node looks for the unit.
  if (config.bootGuardFolder !== '') removeBootGuard(config.bootGuardFolder);
  if (config.slotFolder !== '') removeSlots(config.slotFolder, config.listenPort);
  return reportRemoval(listOwnPins(config.bpfPinFolder), config.bpfPinFolder, io);
}

export function reportRemoval(left: readonly string[], pinFolder: string, io: Io): number {
  if (left.length === 0) {
    io.stdout('removed: pods reach the real metadata endpoint again\n');
    return exitCodes.ok;
  }
  const what = `${left.join(', ')} in ${pinFolder}`;
  const problem = `still pinned: ${what}; an agent that runs puts it back`;
  return fail(io, 'redirect', problem, exitCodes.failed);
}

export async function applyChoice(
  installs: boolean,
  { redirect: mode, why }: Pick<RedirectChoice, 'redirect' | 'why'>,
  io: Io,
): Promise<number> {
  if (installs) await mode.prepare();
  const status = installs ? await mode.install() : await mode.verify();
  const lines = [
    `${mode.mode}: ${status.state} (${status.detail})`,
    `  why this one: ${why}`,
    ...(status.changed ?? []).map((change) => `  changed: ${change}`),
    ...status.problems.map((problem) => `  problem: ${problem}`),
  ];
  io.stdout(`${lines.join('\n')}\n`);
  return status.state === 'active' || status.state === 'off' ? exitCodes.ok : exitCodes.failed;
}
