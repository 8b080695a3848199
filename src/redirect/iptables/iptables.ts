/**
 * The redirect by netfilter: a DNAT in a chain of our own, an address of our own to send to, and a
 * guard behind it. This file composes; each part reads back, repairs and removes itself.
 *
 * 1. Whatever can close the node is done even where another part fails; the first failure is thrown
 *    at the end.
 * 2. Rules change in single transactions; the state read back afterwards is the only evidence.
 * 3. Every connection that the new rules do not see is cut after each installation.
 */
import { collectErrors, createMutex } from '../host/attempts.ts';
import {
  countBrought,
  detectBackend,
  findFallback,
  otherBackends,
  probeTable,
  restoreRules,
  saveNat,
  type Backend,
  type BackendChoice,
} from './backend.ts';
import type { Behind } from '../ebpf/ebpf.ts';
import { createHost, type Host } from '../host/command.ts';
import { cutOlderFlows, type CutExtent, type CutOutcome } from '../host/flows.ts';
import { diffGuard, ensureGuard, removeGuard } from '../host/guard.ts';
import {
  describeLink,
  diffLink,
  ensureLink,
  listLinks,
  nodeAddresses,
  removeLink,
} from '../host/link.ts';
import {
  isUnavailable,
  RedirectError,
  type RedirectStatus,
  type RedirectTarget,
} from '../redirect.ts';
import {
  CHAIN,
  diffNat,
  isAbsent,
  parseNat,
  renderInstall,
  renderRemove,
  type NatState,
  type Transaction,
} from './rules.ts';
import { DEFAULT_TARGET, describeTarget, reachableTarget } from '../target.ts';

export interface IptablesRedirectOptions {
  /** Default: the metadata address, brought to 169.254.25.79:2579. */
  readonly target?: RedirectTarget;
  /** Default `auto`: where the kubelet's chains are. */
  readonly backend?: BackendChoice;
  /** Whether policy routing closes the node behind iptables. Default true. */
  readonly guard?: boolean;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
  /** How long a legacy tool waits for the lock that it shares with others. Default 5. */
  readonly lockWaitSec?: number;
}

export interface IptablesRedirect extends Behind {
  readonly mode: 'iptables';
}

interface Settings {
  readonly target: RedirectTarget;
  readonly backend: BackendChoice;
  readonly guard: boolean;
  readonly host: Host;
  readonly lockWaitSec: number;
}

/**
 * The iptables mode. Its operations run one after the other, however they are called; each throws
 * RedirectError when a tool or the kernel refuses, never for a state that `verify` can describe.
 * @throws RangeError for a target that is not IPv4.
 */
export function openIptablesRedirect(options: IptablesRedirectOptions = {}): IptablesRedirect {
  const settings: Settings = {
    target: reachableTarget(options.target ?? DEFAULT_TARGET),
    backend: options.backend ?? 'auto',
    guard: options.guard ?? true,
    host: options.host ?? createHost(),
    lockWaitSec: options.lockWaitSec ?? 5,
  };
  const inTurn = createMutex();
  let known: Backend | undefined;
  return {
    mode: 'iptables',
    prepare: () =>
      inTurn(async () => {
        await ensureLink(settings.host, settings.target.listenIp);
      }),
    install: () =>
      inTurn(async () => {
        const installed = await install(settings);
        known = installed.backend;
        return installed.status;
      }),
    verify: () =>
      inTurn(async () => {
        // Rules in the iptables that the kubelet has left hold until somebody flushes it: `absent` in
        // the one it went to, whose installation comes before the old rules go.
        known = await detectBackend(settings.host, settings.backend);
        return readBack(settings, known);
      }),
    remove: () => inTurn(() => remove(settings)),
    attest: () => ({ kind: 'by-address' }),
    countBrought: () =>
      inTurn(async () => {
        known ??= await detectBackend(settings.host, settings.backend);
        return countBrought(settings.host, known);
      }),
    cutFlows: () => inTurn(() => cutFlows(settings, 'all')),
  };
}

async function cutFlows(settings: Settings, extent: CutExtent): Promise<CutOutcome> {
  const { host, target } = settings;
  return cutOlderFlows(host, target, nodeAddresses(await listLinks(host)), extent);
}

interface Installation {
  readonly backend: Backend;
  readonly status: RedirectStatus;
}

async function install(settings: Settings): Promise<Installation> {
  const { host, target } = settings;
  const changed: string[] = [];
  const notes: string[] = [];
  const attempts = collectErrors();

  await attempts.run(async () => changed.push(...(await ensureLink(host, target.listenIp))));
  const backend = await attempts.run(async () => {
    const written = await writeRules(settings);
    changed.push(...written.changes);
    return written.backend;
  });
  await attempts.run(async () => {
    if (backend === undefined) return;
    for (const other of otherBackends(backend)) {
      const cleared = await clearBackend(settings, other);
      if (typeof cleared === 'string') notes.push(cleared);
      else changed.push(...cleared.map((change) => `${change} from ${other.name}`));
    }
  });
  await attempts.run(async () => {
    const { metadataIp } = target;
    const settle = settings.guard ? ensureGuard(host, metadataIp) : removeGuard(host, metadataIp);
    changed.push(...(await settle));
  });
  await attempts.run(async () => {
    const outcome = await cutFlows(settings, 'passed-by');
    if (outcome.kind === 'skipped') notes.push(outcome.note);
    else if (outcome.flows > 0) changed.push(`${outcome.flows} older flows cut`);
  });

  attempts.throwFirst();
  if (backend === undefined) throw new Error('no backend although nothing failed');
  const status = await readBack(settings, backend);
  const detail = [status.detail, ...notes].join('; ');
  return { backend, status: { ...status, detail, changed } };
}

interface Written {
  readonly backend: Backend;
  readonly changes: readonly string[];
}

/** Where the first backend refuses, a later process finds the chain in the other one and stays there. */
async function writeRules(settings: Settings): Promise<Written> {
  const { host, target } = settings;
  const write = async (backend: Backend): Promise<Written> => {
    const changes = await converge(settings, backend, (nat) => renderInstall(nat, target));
    return { backend, changes };
  };
  const chosen = await detectBackend(host, settings.backend);
  try {
    return await write(chosen);
  } catch (refusal) {
    if (!isUnavailable(refusal)) throw refusal;
    const fallback = await findFallback(host, settings.backend, chosen);
    if (fallback === undefined) throw refusal;
    return await write(fallback).catch((error: unknown) => {
      throw isUnavailable(error) ? refusal : error;
    });
  }
}

/**
 * Takes away what is ours of a backend that is not the chosen one. A text is why it was not looked at:
 * legacy tables take a right of their own, which a process for nft alone has no use for.
 */
async function clearBackend(
  settings: Settings,
  backend: Backend,
): Promise<readonly string[] | string> {
  try {
    return await converge(settings, backend, renderRemove);
  } catch (error) {
    if (!(error instanceof RedirectError) || error.code !== 'NOT_PERMITTED') throw error;
    return `iptables ${backend.name} not looked at: ${error.message}`;
  }
}

async function remove(settings: Settings): Promise<void> {
  const { host, target } = settings;
  const attempts = collectErrors();
  await attempts.run(async () => {
    const chosen = await detectBackend(host, settings.backend);
    for (const backend of [chosen, ...otherBackends(chosen)]) {
      await converge(settings, backend, renderRemove);
    }
  });
  await attempts.run(() => removeGuard(host, target.metadataIp));
  await attempts.run(() => removeLink(host, target.listenIp));
  attempts.throwFirst();
}

const MAX_TRANSACTIONS = 3;

/**
 * Commits what the plan asks for until it asks for nothing. Another writer may come between reading
 * and committing: then the same plan gives another transaction, and that one is tried.
 */
async function converge(
  settings: Settings,
  backend: Backend,
  plan: (nat: NatState) => Transaction | undefined,
): Promise<readonly string[]> {
  const { host } = settings;
  const changes: string[] = [];
  let failure: RedirectError | undefined;
  let refusedScript: string | undefined;
  for (let count = 0; count <= MAX_TRANSACTIONS; count += 1) {
    const save = await probeTable(host, backend, 'nat');
    // A backend that is not there holds nothing; for one that is wanted, `saveNat` says why not.
    const transaction = plan(parseNat(save ?? ''));
    if (transaction === undefined) return changes;
    if (transaction.script === refusedScript && failure !== undefined) throw failure;
    if (count === MAX_TRANSACTIONS) break;
    try {
      await restoreRules(host, backend, transaction.script, settings.lockWaitSec);
      changes.push(...transaction.changes);
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      failure = error;
      refusedScript = transaction.script;
    }
  }
  // Somebody keeps changing the same rules; reading back tells how it stands.
  return changes;
}

async function readBack(settings: Settings, backend: Backend): Promise<RedirectStatus> {
  const { host, target } = settings;
  const [links, save, guardProblems] = await Promise.all([
    listLinks(host),
    saveNat(host, backend),
    settings.guard ? diffGuard(host, target.metadataIp) : [],
  ]);
  const nat = parseNat(save);
  const problems = [
    ...(await diffLink(host, links, target.listenIp)),
    ...diffNat(nat, target),
    ...guardProblems,
  ];
  const detail = [
    `iptables ${backend.name}`,
    describeLink(links, target.listenIp),
    `${CHAIN}: ${describeTarget(target)}`,
    `guard ${settings.guard ? 'on' : 'off'}`,
  ].join('; ');
  if (problems.length === 0) return { state: 'active', detail, problems };
  return { state: isAbsent(nat) ? 'absent' : 'broken', detail, problems };
}
