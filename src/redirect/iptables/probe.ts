/**
 * Whether this node supports each part of the iptables mode, as in the eBPF probe. Changes nothing: it
 * creates no legacy table and loads no module.
 */
import { detectBackend, legacyBackend, listLegacyTables, nftBackend, runSave } from './backend.ts';
import { createHost, failureOf, type Host, type ToolResult } from '../host/command.ts';
import type { Finding } from '../ebpf/probe.ts';
import { diffGuard } from '../host/guard.ts';
import { isUnavailable, RedirectError } from '../redirect.ts';
import { defaultTarget } from '../target.ts';

export interface IptablesProbe {
  /** Whether rules can be written; the other parts are optional. */
  readonly support: Finding['support'];
  readonly findings: readonly Finding[];
}

const probeStep = 'probe';

/** Never throws for a part that a node may lack. @param host default: this process's own namespace. */
export async function probeIptables(host: Host = createHost()): Promise<IptablesProbe> {
  const inUse = await probeBackend(host);
  const findings = [
    findingOfRun('iptables nft', nftBackend.save, await runSave(host, nftBackend, 'nat')),
    await probeLegacy(host),
    inUse,
    await probeGuard(host),
  ];
  return { support: inUse.support, findings };
}

/** Uses the kernel's list of tables, since reading a table by the tool creates it. */
async function probeLegacy(host: Host): Promise<Finding> {
  const part = 'iptables legacy';
  const found = findingOfRun(
    part,
    legacyBackend.save,
    await host.run(legacyBackend.save, ['--version']),
  );
  if (found.support !== 'supported') return found;
  const tables = await listLegacyTables(host);
  if (tables === undefined) {
    return { part, support: 'unknown', detail: 'its kernel module is not loaded' };
  }
  return { part, support: 'supported', detail: `tables: ${tables.join(', ') || 'none'}` };
}

/** The backend that an installation would use. */
async function probeBackend(host: Host): Promise<Finding> {
  const part = 'iptables in use';
  try {
    const { name } = await detectBackend(host, 'auto');
    return { part, support: 'supported', detail: name };
  } catch (error) {
    return findingOfFailure(part, error);
  }
}

async function probeGuard(host: Host): Promise<Finding> {
  const part = 'policy routing';
  try {
    const problems = await diffGuard(host, defaultTarget.metadataIp);
    const impossible = problems.find((problem) => problem.startsWith('guard impossible'));
    return impossible === undefined
      ? { part, support: 'supported', detail: 'for the guard behind the rules' }
      : { part, support: 'unsupported', detail: impossible };
  } catch (error) {
    return findingOfFailure(part, error);
  }
}

function findingOfRun(part: string, tool: string, result: ToolResult): Finding {
  const failure = failureOf(probeStep, tool, result);
  return failure === undefined
    ? { part, support: 'supported', detail: tool }
    : findingOfFailure(part, failure);
}

/** A missing tool or kernel feature means unsupported; any other failure means unknown. */
function findingOfFailure(part: string, error: unknown): Finding {
  if (!(error instanceof RedirectError)) throw error;
  const { code, message } = error;
  if (code === 'NOT_PERMITTED') {
    const detail = `unknown without CAP_NET_ADMIN (${message})`;
    return { part, support: 'unknown', detail };
  }
  return { part, support: isUnavailable(error) ? 'unsupported' : 'unknown', detail: message };
}
