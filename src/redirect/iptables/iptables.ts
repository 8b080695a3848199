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
  detectBackend,
  otherBackend,
  probeTable,
  restoreRules,
  saveNat,
  type Backend,
} from './backend.ts';
import { createHost, type Host } from '../host/command.ts';
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
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from '../redirect.ts';
import {
  chainName,
  diffNat,
  isAbsent,
  parseNat,
  redirectedPort,
  renderInstall,
  renderRemove,
  unlimitedChain,
  wantedChain,
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
   * Whether programs of the eBPF mode stand in front. Default false. A node without working iptables then has
   * link and guard only.
   */
  readonly isBehind?: boolean;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
}

type Settings = Required<IptablesRedirectOptions>;

/**
 * The iptables mode. Its operations are serialized. Each throws RedirectError when a tool or the kernel
 * refuses, never for a state that `verify` can describe.
 * @throws RangeError for a target that is not IPv4.
 */
export function openIptablesRedirect(options: IptablesRedirectOptions = {}): Redirect {
  const settings: Settings = {
    backend: 'auto',
    guard: true,
    isBehind: false,
    host: createHost(),
    ...options,
    target: reachableTarget(options.target ?? defaultTarget),
  };
  const serialize = createMutex();
  let last: { readonly generation: number; readonly rules: Rules } | undefined;
  /**
   * The nftables rules are read again when the kernel reports a change of them. So is the backend, since the
   * kubelet's chains there decide it. Legacy tables have no generation: a tool reads them each time.
   */
  const readChanged = async (): Promise<Rules> => {
    const generation = await settings.host.ruleGeneration();
    const before = generation === last?.generation ? last?.rules : undefined;
    if (before?.backend === 'nft') return before;
    const rules = await readRules(settings, before?.backend ?? (await detect(settings)));
    last = generation === undefined ? undefined : { generation, rules };
    return rules;
  };
  /** If a kernel permits reading rules but not writing them, only an installation reveals it. */
  let refused: Rules | undefined;
  const read = async (): Promise<Rules> => refused ?? unlessUnavailable(settings, readChanged);
  return {
    mode: 'iptables',
    prepare: () =>
      serialize(async () => {
        await ensureLink(settings.host, settings.target.listenIp);
      }),
    install: (port) =>
      serialize(async () => {
        refused = undefined;
        const { rules, status } = await install(settings, port);
        if (rules.backend === undefined) refused = rules;
        return status;
      }),
    // If the kubelet has moved to the other backend, the state there is `absent`. The rules are
    // installed there before those in the old backend, which still work, are removed.
    verify: () => serialize(async () => readBack(settings, await read())),
    isFrontWhole: (port) =>
      serialize(async () => {
        if (!(await settings.host.isLocal(settings.target.listenIp))) return false;
        const rules = await read();
        return rules.problems.length === 0 && (port === undefined || rules.port === port);
      }),
    remove: () => serialize(() => remove(settings)),
  };
}

function detect({ host, backend }: Settings): Promise<Backend> {
  return detectBackend(host, backend);
}

async function install(settings: Settings, port: number | undefined) {
  const { host, target } = settings;
  const changed: string[] = [];
  const notes: string[] = [];
  const errors = collectErrors();

  await errors.run(async () => changed.push(...(await ensureLink(host, target.listenIp))));
  const written = await errors.run(() =>
    unlessUnavailable(settings, async () => {
      const chosen = await detect(settings);
      changed.push(...(await installRules(settings, chosen, port)));
      const other = otherBackend(chosen);
      const cleared = await clearBackend(settings, other);
      if (typeof cleared === 'string') notes.push(cleared);
      else changed.push(...cleared.map((change) => `${change} from ${other}`));
      return { backend: chosen };
    }),
  );
  await errors.run(async () => {
    const { metadataIp } = target;
    const settle = settings.guard ? ensureGuard(host, metadataIp) : removeGuard(host, metadataIp);
    changed.push(...(await settle));
  });
  await errors.run(async () => {
    const nodeIps = nodeAddresses(await listLinks(host));
    const cut = await cutOlderFlows(settings, nodeIps);
    if (typeof cut === 'string') notes.push(cut);
    else if (cut > 0) changed.push(`${cut} older flows cut`);
  });

  errors.throwFirst();
  const found = written ?? { backend: await detect(settings) };
  const rules = found.backend === undefined ? found : await readRules(settings, found.backend);
  const status = await readBack(settings, rules);
  return { rules, status: { ...status, detail: [status.detail, ...notes].join('; '), changed } };
}

/**
 * Cuts connections that are older than the redirect. NAT is decided at the first packet of a connection,
 * so an older keep-alive connection still reaches the real endpoint. After the deletion of its conntrack
 * entry, its next packet counts as a first packet: it is redirected, belongs to no connection of the
 * agent, and gets a reset. Conntrack creates no entry for a FIN or an RST, so these packets of a cut connection are
 * not redirected, and a FIN may carry a request: the guard stops them.
 *
 * Behind programs also those that the rules redirected: netfilter gives a client that connects from the same port
 * through the programs another one, until conntrack forgets them (two minutes after their end).
 * @returns their number, or why this node does not support it: that is no failure, since the guard blocks such a
 *     connection too.
 */
async function cutOlderFlows(
  { host, target, isBehind }: Settings,
  nodeIps: ReadonlySet<string>,
): Promise<number | string> {
  try {
    return await host.cutFlows({
      dialled: { ip: target.metadataIp, port: target.metadataPort },
      answeredBy: isBehind ? undefined : target.listenIp,
      sparedSources: [...nodeIps],
    });
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    return `older flows not cut: ${error.message}`;
  }
}

/** A node without hashlimit is closed all the same. */
async function installRules(
  settings: Settings,
  backend: Backend,
  port: number | undefined,
): Promise<readonly string[]> {
  const { target, isBehind } = settings;
  const portIn = (nat: NatState): number | undefined => port ?? redirectedPort(nat, target);
  try {
    return await converge(settings, backend, (nat) =>
      renderInstall(nat, wantedChain(target, isBehind, portIn(nat))),
    );
  } catch (error) {
    if (!(error instanceof RedirectError) || !isRefusal(error)) throw error;
    return converge(settings, backend, (nat) =>
      renderInstall(nat, unlimitedChain(target, portIn(nat))),
    );
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

async function remove(settings: Settings): Promise<void> {
  const { host, target } = settings;
  const errors = collectErrors();
  await errors.run(() =>
    unlessUnavailable(settings, async () => {
      const chosen = await detect(settings);
      for (const backend of [chosen, otherBackend(chosen)]) {
        await converge(settings, backend, renderRemove);
      }
    }),
  );
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
  const { backend, note } = rules;
  const detail = [
    ...(backend === undefined ? [] : [`iptables ${backend}`]),
    describeLink(links, target.listenIp),
    ...(backend === undefined ? [] : [`${chainName}: ${describeTarget(target, rules.port)}`]),
    `guard ${settings.guard ? 'on' : 'off'}`,
    ...(note === undefined ? [] : [note]),
  ].join('; ');
  const { port } = rules;
  if (problems.length === 0) return { state: 'active', detail, problems, port };
  return { state: rules.isAbsent ? 'absent' : 'broken', detail, problems, port };
}

interface Rules {
  /** Undefined if this node has no working iptables. */
  readonly backend?: Backend;
  readonly note?: string;
  /** Of the agent that the rules lead to. */
  readonly port?: number | undefined;
  readonly problems: readonly string[];
  readonly isAbsent: boolean;
}

async function readRules(settings: Settings, backend: Backend): Promise<Rules> {
  const { host, target, isBehind } = settings;
  const nat = parseNat(await saveNat(host, backend));
  const port = redirectedPort(nat, target);
  const isUnlimited = diffNat(nat, unlimitedChain(target, port)).length === 0;
  return {
    backend,
    port,
    ...(isUnlimited ? { note: 'connects are not limited: no hashlimit' } : {}),
    problems: isUnlimited ? [] : diffNat(nat, wantedChain(target, isBehind, port)),
    isAbsent: isAbsent(nat),
  };
}

/** A node without working iptables is still redirected by the programs in front. */
async function unlessUnavailable<T>(
  { isBehind }: Settings,
  work: () => Promise<T>,
): Promise<T | Rules> {
  try {
    return await work();
  } catch (error) {
    if (!isBehind || !isUnavailable(error)) throw error;
    return { note: `no netfilter behind it: ${error.message}`, problems: [], isAbsent: false };
  }
}
