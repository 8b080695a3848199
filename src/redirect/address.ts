/**
 * The address mode, for nodes without a metadata service: the node itself has the metadata address, on
 * a link of the agent, and the agent listens there. Nothing is rewritten: the kernel delivers packets
 * for a local address before it applies routes and policy rules.
 *
 * If a real service answers, the mode is refused, since taking the address would cut off the node and
 * its add-ons from the service.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { createHost, type Host } from './host/command.ts';
import {
  describeLink,
  diffLink,
  ensureLink,
  linkName,
  listLinks,
  nodeAddresses,
  otherAddresses,
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
  /** The address and port that pods connect to. */
  readonly target: Pick<RedirectTarget, 'metadataIp' | 'metadataPort'>;
  /** Default: this process's own network namespace. */
  readonly host?: Host;
  /** Whether a service answers at the address; default: tries a connection. */
  readonly isAnswered?: (ip: string, port: number) => Promise<boolean>;
}

/** The real service is link-local and answers within milliseconds. */
const probeTimeoutMs = 1_000;

export function openAddressRedirect(options: AddressRedirectOptions): Redirect {
  const { metadataIp, metadataPort } = options.target;
  const { isAnswered = isReachable } = options;
  const host = options.host ?? createHost();

  /** Rules of another mode redirect pods to an address without a listener, past the node's own address. */
  function leftBehind(links: readonly NodeLink[]): readonly string[] {
    const others = otherAddresses(links, metadataIp);
    if (others.length === 0) return [];
    return [
      `${linkName} holds ${others.join(', ')}: another redirect was left behind, which ` +
        'nmi redirect remove takes away',
    ];
  }

  async function take(): Promise<readonly string[]> {
    const links = await listLinks(host);
    const [left] = leftBehind(links);
    if (left !== undefined) throw new RedirectError('CONFLICT', 'take address', left);
    // If the node has the address, the service that answers is an earlier agent.
    if (!nodeAddresses(links).has(metadataIp)) {
      if (await isAnswered(metadataIp, metadataPort)) {
        throw new RedirectError(
          'CONFLICT',
          'take address',
          `a service answers at ${metadataIp}:${metadataPort}: this node has a metadata service, ` +
            'which the address mode would cut off; use another value of --redirect',
        );
      }
    }
    return ensureLink(host, metadataIp);
  }

  async function readBack(): Promise<RedirectStatus> {
    const links = await listLinks(host);
    const problems = [...diffLink(links, metadataIp), ...leftBehind(links)];
    const isAbsent = links.every((link) => link.name !== linkName);
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
      return { ...(await readBack()), changed };
    },
    verify: readBack,
    digest: () => host.digestState(metadataIp, metadataIp),
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
