/**
 * The iptables mode: a DNAT rule in the agent's own chain, the agent's own address as target, and
 * the guard. This file composes the parts; each part verifies, repairs and removes itself.
 *
 * 1. Every part that closes the node is installed even if another part fails; the first failure is thrown
 *    at the end.
 * 2. Rules change in single transactions; the state is then read back from the kernel.
 * 3. Connections that the new rules do not see are cut after each installation.
 */
import { collectErrors } from '../host/collect-errors.ts';
import { createMutex } from '../host/mutex.ts';
import {
  countRedirected,
  detectBackend,
  otherBackend,
  probeTable,
  restoreRules,
  saveNat,
  type Backend,
} from './backend.ts';
import type { FallbackRedirect } from '../ebpf/ebpf.ts';
import { createHost, type Host } from '../host/command.ts';
import { cutOlderFlows, type CutExtent } from '../host/flows.ts';
import { diffGuard, ensureGuard, removeGuard } from '../host/guard.ts';
import {
  describeLink,
  diffLink,
  ensureLink,
  listLinks,
  nodeAddresses,
  removeLink,
} from '../host/link.ts';
import { RedirectError, type RedirectStatus, type RedirectTarget } from '../redirect.ts';
import {
  chainName,
  diffNat,
  isAbsent,
  parseNat,
  renderInstall,
  renderRemove,
  unlimitedChain,
  wantedChain,
  type LimitedConnects,
  type NatState,
  type Transaction,
} from './rules.ts';
import { defaultTarget, describeTarget, reachableTarget } from '../target.ts';

export interface IptablesRedirectOptions {
  /** Default: the metadata address, redirected to 169.254.25.79:2579. */
  readonly target?: RedirectTarget;
  /** Default `auto`: the backend with the kubelet's chains. */
  readonly backend?: Backend | 'auto';
  /** Whether policy routing blocks packets that bypass iptables. Default true. */
  readonly guard?: boolean;
  /**
   * Whether connects to the agent's own address are limited too. Default `all`. Not behind programs, which
   * limit each pod: there, who forges the address of a pod would use up its rate.
   */
  readonly limited?: LimitedConnects;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
}

type Settings = Required<IptablesRedirectOptions>;

/**
 * The iptables mode. Its operations are serialized. Each throws RedirectError when a tool or the kernel
 * refuses, never for a state that `verify` can describe.
 * @throws RangeError for a target that is not IPv4.
 */
export function openIptablesRedirect(options: IptablesRedirectOptions = {}): FallbackRedirect {
  const settings: Settings = {
    backend: 'auto',
    guard: true,
    limited: 'all',
    host: createHost(),
    ...options,
    target: reachableTarget(options.target ?? defaultTarget),
  };
  const serialize = createMutex();
  let known: Backend | undefined;
  const detect = async (): Promise<Backend> =>
    (known = await detectBackend(settings.host, settings.backend));
  let last: { readonly generation: number; readonly rules: Rules } | undefined;
  /**
   * The nftables rules are read again when the kernel reports a change of them. So is the backend, since the
   * kubelet's chains there decide it. Legacy tables have no generation: a tool reads them each time.
   */
  const read = async (): Promise<Rules> => {
    const generation = await settings.host.ruleGeneration();
    const before = generation === last?.generation ? last?.rules : undefined;
    if (before?.backend === 'nft') return before;
    const rules = await readRules(settings, before?.backend ?? (await detect()));
    last = generation === undefined ? undefined : { generation, rules };
    return rules;
  };
  return {
    mode: 'iptables',
    prepare: () =>
      serialize(async () => {
        await ensureLink(settings.host, settings.target.listenIp);
      }),
    install: () => serialize(() => install(settings, detect)),
    // If the kubelet has moved to the other backend, the state there is `absent`. The rules are
    // installed there before those in the old backend, which still work, are removed.
    verify: () => serialize(async () => readBack(settings, await read())),
    isFrontWhole: () =>
      serialize(async () => {
        if (!(await settings.host.isLocal(settings.target.listenIp))) return false;
        return (await read()).problems.length === 0;
      }),
    remove: () => serialize(() => remove(settings, detect)),
    attest: () => ({ kind: 'by-address' }),
    countRedirected: () =>
      serialize(async () => countRedirected(settings.host, known ?? (await detect()))),
    cutFlows: () => serialize(() => cutFlows(settings, 'all')),
  };
}

async function cutFlows(settings: Settings, extent: CutExtent): Promise<number | string> {
  const { host, target } = settings;
  return cutOlderFlows(host, target, nodeAddresses(await listLinks(host)), extent);
}

type Detect = () => Promise<Backend>;

async function install(settings: Settings, detect: Detect): Promise<RedirectStatus> {
  const { host, target } = settings;
  const changed: string[] = [];
  const notes: string[] = [];
  const errors = collectErrors();

  await errors.run(async () => changed.push(...(await ensureLink(host, target.listenIp))));
  const backend = await errors.run(async () => {
    const chosen = await detect();
    changed.push(...(await installRules(settings, chosen)));
    const other = otherBackend(chosen);
    const cleared = await clearBackend(settings, other);
    if (typeof cleared === 'string') notes.push(cleared);
    else changed.push(...cleared.map((change) => `${change} from ${other}`));
    return chosen;
  });
  await errors.run(async () => {
    const { metadataIp } = target;
    const settle = settings.guard ? ensureGuard(host, metadataIp) : removeGuard(host, metadataIp);
    changed.push(...(await settle));
  });
  await errors.run(async () => {
    const cut = await cutFlows(settings, 'passed-by');
    if (typeof cut === 'string') notes.push(cut);
    else if (cut > 0) changed.push(`${cut} older flows cut`);
  });

  errors.throwFirst();
  const status = await readBack(settings, await readRules(settings, backend ?? (await detect())));
  return { ...status, detail: [status.detail, ...notes].join('; '), changed };
}

/** A node without hashlimit is closed all the same. */
async function installRules(settings: Settings, backend: Backend): Promise<readonly string[]> {
  const { target, limited } = settings;
  const wanted = wantedChain(target, limited);
  try {
    return await converge(settings, backend, (nat) => renderInstall(nat, target, wanted));
  } catch (error) {
    if (!(error instanceof RedirectError) || !isRefusal(error)) throw error;
    return converge(settings, backend, (nat) => renderInstall(nat, target, unlimitedChain(target)));
  }
}

function isRefusal({ code }: RedirectError): boolean {
  return code === 'UNSUPPORTED' || code === 'TOOL_FAILED';
}

/**
 * Removes the agent's rules from a backend that is not the chosen one. Returns a text if that backend
 * could not be read: legacy tables need a permission that nft does not need.
 */
async function clearBackend(
  settings: Settings,
  backend: Backend,
): Promise<readonly string[] | string> {
  try {
    return await converge(settings, backend, renderRemove);
  } catch (error) {
    if (!(error instanceof RedirectError) || error.code !== 'NOT_PERMITTED') throw error;
    return `iptables ${backend} not looked at: ${error.message}`;
  }
}

async function remove(settings: Settings, detect: Detect): Promise<void> {
  const { host, target } = settings;
  const errors = collectErrors();
  await errors.run(async () => {
    const chosen = await detect();
    for (const backend of [chosen, otherBackend(chosen)]) {
      await converge(settings, backend, renderRemove);
    }
  });
  await errors.run(() => removeGuard(host, target.metadataIp));
  await errors.run(() => removeLink(host, target.listenIp));
  errors.throwFirst();
}

const maxTransactions = 3;

/**
 * Commits the transaction of `plan` until it returns none. If another process changes the rules between
 * reading and committing, the plan returns another transaction, which is committed next.
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
  for (let count = 0; count <= maxTransactions; count += 1) {
    const save = await probeTable(host, backend, 'nat');
    // An absent backend has no rules; for a chosen one, `saveNat` throws the reason.
    const transaction = plan(parseNat(save ?? ''));
    if (transaction === undefined) return changes;
    if (transaction.script === refusedScript && failure !== undefined) throw failure;
    if (count === maxTransactions) break;
    try {
      await restoreRules(host, backend, transaction.script);
      changes.push(...transaction.changes);
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      failure = error;
      refusedScript = transaction.script;
    }
  }
  // Another process keeps changing the same rules; reading back reports the state.
  return changes;
}

async function readBack(settings: Settings, rules: Rules): Promise<RedirectStatus> {
  const { host, target } = settings;
  const [links, guardProblems] = await Promise.all([
    listLinks(host),
    settings.guard ? diffGuard(host, target.metadataIp) : [],
  ]);
  const problems = [...diffLink(links, target.listenIp), ...rules.problems, ...guardProblems];
  const detail = [
    `iptables ${rules.backend}`,
    describeLink(links, target.listenIp),
    `${chainName}: ${describeTarget(target)}`,
    `guard ${settings.guard ? 'on' : 'off'}`,
    ...(rules.isUnlimited ? ['connects are not limited: no hashlimit'] : []),
  ].join('; ');
  if (problems.length === 0) return { state: 'active', detail, problems };
  return { state: rules.isAbsent ? 'absent' : 'broken', detail, problems };
}

interface Rules {
  readonly backend: Backend;
  readonly problems: readonly string[];
  readonly isUnlimited: boolean;
  readonly isAbsent: boolean;
}

async function readRules(settings: Settings, backend: Backend): Promise<Rules> {
  const { host, target, limited } = settings;
  const nat = parseNat(await saveNat(host, backend));
  const isUnlimited = diffNat(nat, target, unlimitedChain(target)).length === 0;
  return {
    backend,
    problems: isUnlimited ? [] : diffNat(nat, target, wantedChain(target, limited)),
    isUnlimited,
    isAbsent: isAbsent(nat),
  };
}
