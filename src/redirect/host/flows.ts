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

/** Whether to cut only connections that bypass the agent, or all. */
export type CutExtent = 'passed-by' | 'all';

/**
 * Cuts connections to the metadata address, except those of the node itself. Returns their number, or why
 * this node does not support it: that is no failure, since the guard blocks such a connection too.
 */
export async function cutOlderFlows(
  host: Host,
  target: RedirectTarget,
  nodeIps: ReadonlySet<string>,
  extent: CutExtent,
): Promise<number | string> {
  try {
    return await host.cutFlows({
      dialled: { ip: target.metadataIp, port: target.metadataPort },
      answeredBy: extent === 'all' ? undefined : target.listenIp,
      sparedSources: [...nodeIps],
    });
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    return `older flows not cut: ${error.message}`;
  }
}
