/**
 * The address mode, for nodes without a metadata service of their own: the node itself holds the
 * metadata address, on a link of ours, and the agent listens there. Nothing is rewritten; a pod's
 * packet finds a local address before any route or policy rule.
 *
 * Where a real service answers, taking its address would cut the node and its add-ons off from
 * it, so that is refused.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { createHost, type Host } from './host/command.ts';
import {
  describeLink,
  diffLink,
  ensureLink,
  LINK,
  listLinks,
  nodeAddresses,
  othersBeside,
  removeLink,
  type NodeLink,
} from './host/link.ts';
import {
  RedirectError,
  type Redirect,
  type RedirectStatus,
  type RedirectTarget,
} from './redirect.ts';

export interface AddressRedirectOptions {
  /** The address that pods dial, and the port. */
  readonly target: Pick<RedirectTarget, 'metadataIp' | 'metadataPort'>;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
  /** Whether something answers at the address; default: a connection is tried. */
  readonly isAnswered?: (ip: string, port: number) => Promise<boolean>;
}

/** A real service is on the node's own link and answers within milliseconds. */
const probeTimeoutMs = 1_000;

export function openAddressRedirect(options: AddressRedirectOptions): Redirect {
  const { metadataIp, metadataPort } = options.target;
  const { isAnswered = isReachable } = options;
  const host = options.host ?? createHost();

  /** Its rules lead pods to where nobody listens now, before they could find the node's own address. */
  function leftBehind(links: readonly NodeLink[]): readonly string[] {
    const others = othersBeside(links, metadataIp);
    if (others.length === 0) return [];
    return [
      `${LINK} holds ${others.join(', ')}: another redirect was left behind, which ` +
        'nmi redirect remove takes away',
    ];
  }

  async function take(): Promise<readonly string[]> {
    const links = await listLinks(host);
    const [left] = leftBehind(links);
    if (left !== undefined) throw new RedirectError('CONFLICT', 'take address', left);
    // What answers at an address that the node holds is the node: an agent before this one.
    if (!nodeAddresses(links).has(metadataIp)) {
      if (await isAnswered(metadataIp, metadataPort)) {
        throw new RedirectError(
          'CONFLICT',
          'take address',
          `something answers at ${metadataIp}:${metadataPort}: this node has a metadata service, ` +
            'for which another redirect is meant',
        );
      }
    }
    return ensureLink(host, metadataIp);
  }

  async function verify(): Promise<RedirectStatus> {
    const links = await listLinks(host);
    const problems = [...(await diffLink(host, links, metadataIp)), ...leftBehind(links)];
    const isAbsent = links.every((link) => link.name !== LINK);
    const broken = isAbsent ? 'absent' : 'broken';
    return {
      state: problems.length === 0 ? 'active' : broken,
      detail: describeLink(links, metadataIp),
      problems,
    };
  }

  return {
    mode: 'address',
    prepare: async () => {
      await take();
    },
    install: async () => {
      const changed = await take();
      return { ...(await verify()), changed };
    },
    verify,
    remove: () => removeLink(host, metadataIp),
    attest: () => ({ kind: 'by-address' }),
  };
}

async function isReachable(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(probeTimeoutMs) });
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
