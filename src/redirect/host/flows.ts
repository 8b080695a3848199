/**
 * Cutting the connections that are older than the redirect. NAT is decided for the first packet of
 * a connection, so one that a pod kept alive since before goes on to the real endpoint. Forgetting
 * it makes its next packet a first packet: it is redirected, meets no connection of ours, and is
 * answered with a reset.
 *
 * The tracking opens no connection for a FIN or a RST, so those last packets of a connection that
 * was cut are not redirected, and a FIN may carry a request: it takes the guard to stop them.
 */
import { failureOf, outputOf, type Host } from './command.ts';
import { RedirectError, type RedirectTarget } from '../redirect.ts';

/** A tracked connection: where it came from and who answers it. */
export interface Flow {
  readonly source: string;
  readonly replySource: string;
  readonly replyPort: number;
}

export type CutOutcome =
  | { readonly kind: 'cut'; readonly flows: number }
  /** Not possible on this node; `note` is for people. */
  | { readonly kind: 'skipped'; readonly note: string };

const MAX_LIST_BYTES = 16 << 20;

/** Cut what was not brought to the agent, or what was as well. */
export type CutExtent = 'passed-by' | 'all';

/**
 * Cuts connections to the metadata address, except those of the node itself: by netlink, or by
 * conntrack(8) where this program has no way of its own.
 * Never throws for what kernel or tool answer: the guard holds such a connection as well, if less
 * politely.
 */
export async function cutOlderFlows(
  host: Host,
  target: RedirectTarget,
  nodeIps: ReadonlySet<string>,
  extent: CutExtent,
): Promise<CutOutcome> {
  const cut = { target, nodeIps, extent };
  return cutByNetlink(host, cut) ?? cutByTool(host, cut);
}

interface Cut {
  readonly target: RedirectTarget;
  readonly nodeIps: ReadonlySet<string>;
  readonly extent: CutExtent;
}

function cutByNetlink(host: Host, { target, nodeIps, extent }: Cut): CutOutcome | undefined {
  try {
    const flows = host.cutFlows?.({
      dialled: { ip: target.metadataIp, port: target.metadataPort },
      answeredBy: extent === 'all' ? undefined : { ip: target.listenIp, port: target.listenPort },
      sparedSources: [...nodeIps],
    });
    return flows === undefined ? undefined : { kind: 'cut', flows };
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    // The addon cannot be loaded here, or the kernel has no such protocol.
    if (error.code === 'UNSUPPORTED') return undefined;
    return { kind: 'skipped', note: `older flows not cut: ${error.message}` };
  }
}

async function cutByTool(host: Host, cut: Cut): Promise<CutOutcome> {
  const { target } = cut;
  const toMetadata = [
    ...['-p', 'tcp', '--orig-dst', target.metadataIp],
    ...['--orig-port-dst', String(target.metadataPort)],
  ];
  const listed = await host.run('conntrack', ['-L', ...toMetadata, '-o', 'extended'], {
    maxBytes: MAX_LIST_BYTES,
  });
  const failure = failureOf('list flows', 'conntrack', listed);
  if (failure !== undefined) {
    return { kind: 'skipped', note: `older flows not cut: ${failure.message}` };
  }
  const flows = parseFlows(outputOf('list flows', 'conntrack', listed));
  const meant = flows.filter((flow) => isMeant(flow, cut));
  for (const flow of distinct(meant)) {
    const result = await host.run('conntrack', [
      ...['-D', ...toMetadata, '--orig-src', flow.source],
      ...['--reply-src', flow.replySource, '--reply-port-src', String(flow.replyPort)],
    ]);
    // Exit code 1 says that nothing matched: the connection ended by itself in between.
    if (result.kind === 'exited' && result.exitCode === 1) continue;
    const refused = failureOf('cut flows', 'conntrack', result);
    if (refused !== undefined) {
      return { kind: 'skipped', note: `older flows not cut: ${refused.message}` };
    }
  }
  return { kind: 'cut', flows: meant.length };
}

const TUPLE = /\bsrc=(\S+) dst=\S+ sport=\d+ dport=\d+/g;

/** Reads the output of `conntrack -L -o extended`. Never throws. */
export function parseFlows(text: string): readonly Flow[] {
  const flows: Flow[] = [];
  for (const line of text.split('\n')) {
    const [original, reply] = [...line.matchAll(TUPLE)];
    const source = original?.[1];
    const replySource = reply?.[1];
    const replyPort = Number(/ sport=(\d+)/.exec(reply?.[0] ?? '')?.[1]);
    if (source === undefined || replySource === undefined || Number.isNaN(replyPort)) continue;
    flows.push({ source, replySource, replyPort });
  }
  return flows;
}

function isMeant(flow: Flow, { target, nodeIps, extent }: Cut): boolean {
  const isBrought = flow.replySource === target.listenIp && flow.replyPort === target.listenPort;
  if (isBrought && extent === 'passed-by') return false;
  // 127.0.0.0/8 as a whole is the node, its interface list has 127.0.0.1 only.
  return !nodeIps.has(flow.source) && !flow.source.startsWith('127.');
}

/** One deletion serves all connections of a pod, of which there may be thousands in TIME_WAIT. */
function distinct(flows: readonly Flow[]): readonly Flow[] {
  const byKey = new Map(
    flows.map((flow) => [`${flow.source} ${flow.replySource} ${flow.replyPort}`, flow]),
  );
  return [...byKey.values()];
}
