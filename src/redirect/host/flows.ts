/**
 * Cutting the connections that are older than the redirect. NAT is decided for the first packet of
 * a connection, so one that a pod kept alive since before goes on to the real endpoint. Forgetting
 * it makes its next packet a first packet: it is redirected, meets no connection of ours, and is
 * answered with a reset.
 *
 * The tracking opens no connection for a FIN or a RST, so those last packets of a connection that
 * was cut are not redirected, and a FIN may carry a request: it takes the guard to stop them.
 */
import type { Host } from './command.ts';
import { RedirectError, type RedirectTarget } from '../redirect.ts';

export type CutOutcome =
  | { readonly kind: 'cut'; readonly flows: number }
  /** Not possible on this node; `note` is for people. */
  | { readonly kind: 'skipped'; readonly note: string };

/** Cut what was not brought to the agent, or what was as well. */
export type CutExtent = 'passed-by' | 'all';

/**
 * Cuts connections to the metadata address, except those of the node itself. Never throws for what
 * the kernel answers: the guard holds such a connection as well, if less politely.
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
