/**
 * Cuts connections that are older than the redirect. NAT is decided at the first packet of a connection,
 * so an older keep-alive connection still reaches the real endpoint. After the deletion of its conntrack
 * entry, its next packet counts as a first packet: it is redirected, belongs to no connection of the
 * agent, and gets a reset.
 *
 * Conntrack creates no entry for a FIN or an RST, so these packets of a cut connection are not redirected,
 * and a FIN may carry a request: the guard stops them.
 */
import type { Host } from './command.ts';
import { RedirectError, type RedirectTarget } from '../redirect.ts';

export type CutOutcome =
  | { readonly kind: 'cut'; readonly flows: number }
  /** This node does not support it; `note` is for people. */
  | { readonly kind: 'skipped'; readonly note: string };

/** Whether to cut only connections that bypass the agent, or all. */
export type CutExtent = 'passed-by' | 'all';

/**
 * Cuts connections to the metadata address, except those of the node itself. Never throws for an error of
 * the kernel: the guard blocks such a connection too.
 */
export async function cutOlderFlows(
  host: Host,
  target: RedirectTarget,
  nodeIps: ReadonlySet<string>,
  extent: CutExtent,
): Promise<CutOutcome> {
  try {
    const flows = await host.cutFlows({
      dialled: { ip: target.metadataIp, port: target.metadataPort },
      answeredBy: extent === 'all' ? undefined : { ip: target.listenIp, port: target.listenPort },
      sparedSources: [...nodeIps],
    });
    return { kind: 'cut', flows };
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    return { kind: 'skipped', note: `older flows not cut: ${error.message}` };
  }
}
