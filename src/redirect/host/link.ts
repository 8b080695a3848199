/**
 * The address that the agent listens on, on its own link: a stable address that depends on no
 * interface name and needs no `route_localnet`. An address that the node already has needs no link.
 */
import { outputOf, type Host } from './command.ts';
import { asRecord, textOf, type JsonRecord } from '../../base/json-value.ts';
import { RedirectError } from '../redirect.ts';

/** One interface of the node, from `ip -j -d addr show`. */
export interface NodeLink {
  readonly name: string;
  /** `dummy`, `bridge`, `veth`, ... or `undefined` for hardware. */
  readonly kind: string | undefined;
  /** The bridge or bond that this interface is a port of. */
  readonly master: string | undefined;
  readonly up: boolean;
  readonly ipv4: readonly string[];
}

const linkName = 'nmi0';

const ownKinds: readonly (string | undefined)[] = ['dummy', 'bridge'];

/** @throws RedirectError */
export async function listLinks(host: Host): Promise<readonly NodeLink[]> {
  const result = await host.run('ip', ['-j', '-d', 'addr', 'show']);
  const links = parseLinks(outputOf('read links', 'ip', result));
  if (links !== undefined) return links;
  throw new RedirectError('TOOL_FAILED', 'read links', 'ip printed no JSON (iproute2 needed)');
}

/** The links of a JSON array; `undefined` for any other text. Never throws. */
export function parseLinks(text: string): readonly NodeLink[] | undefined {
  // Some versions of ip print nothing instead of an empty array.
  if (text.trim() === '') return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  return value.map(asRecord).flatMap((entry) => (entry === undefined ? [] : [readLink(entry)]));
}

function readLink(entry: JsonRecord): NodeLink {
  return {
    name: textOf(entry['ifname']) ?? '',
    kind: textOf(asRecord(entry['linkinfo'])?.['info_kind']),
    master: textOf(entry['master']),
    up: Array.isArray(entry['flags']) && entry['flags'].includes('UP'),
    ipv4: (Array.isArray(entry['addr_info']) ? entry['addr_info'] : [])
      .map(asRecord)
      .filter((address) => address?.['family'] === 'inet')
      .map((address) => textOf(address?.['local']) ?? '')
      .filter((ip) => ip !== ''),
  };
}

export function nodeAddresses(links: readonly NodeLink[]): ReadonlySet<string> {
  return new Set(links.flatMap((link) => link.ipv4));
}

/** Problems of the listen address, as short sentences. */
export function diffLink(links: readonly NodeLink[], ip: string): readonly string[] {
  if (holderOf(links, ip) !== undefined) return [];
  const own = findOwn(links);
  if (own === undefined) return [`link ${linkName} missing`];
  if (!isAdoptable(links, own))
    return [`link ${linkName} is not the agent's: it is a ${describeKind(own)}`];
  const problems: string[] = [];
  if (!own.ipv4.includes(ip)) problems.push(`address ${ip} missing from ${linkName}`);
  if (!own.up) problems.push(`link ${linkName} is down`);
  return problems;
}

/**
 * Brings the listen address up; returns the changes. A link of that name and of another kind is left
 * alone; `diffLink` reports it.
 * @throws RedirectError
 */
export async function ensureLink(host: Host, ip: string): Promise<readonly string[]> {
  const links = await listLinks(host);
  if (holderOf(links, ip) !== undefined) return [];
  const changes: string[] = [];
  const own = findOwn(links);
  if (own === undefined) {
    const kind = await addLink(host);
    changes.push(`link ${linkName} made, a ${kind}`);
  } else if (!isAdoptable(links, own)) {
    return [];
  }
  if (own?.ipv4.includes(ip) !== true) {
    // With scope host the kernel does not use it as the source address of traffic that leaves the node:
    // the node's ends of pod links often have no address, so the kernel selects any other.
    await runIp(host, ['addr', 'add', `${ip}/32`, 'dev', linkName, 'scope', 'host']);
    changes.push(`address ${ip} added to ${linkName}`);
  }
  if (own?.up !== true) {
    await runIp(host, ['link', 'set', linkName, 'up']);
    if (own !== undefined) changes.push(`link ${linkName} set up`);
  }
  return changes;
}

/**
 * Removes the agent's link: a link of its name, of one of its two kinds, with its address. Any other link
 * stays.
 * @throws RedirectError
 */
export async function removeLink(host: Host, ip: string): Promise<void> {
  const links = await listLinks(host);
  const own = findOwn(links);
  if (own === undefined || !isAdoptable(links, own) || !own.ipv4.includes(ip)) return;
  await runIp(host, ['link', 'del', linkName]);
}

/** Location of the listen address, for people. */
export function describeLink(links: readonly NodeLink[], ip: string): string {
  const holder =
    holderOf(links, ip) ?? links.find((link) => link.name === linkName && link.ipv4.includes(ip));
  return holder === undefined
    ? `address ${ip} on no link`
    : `address ${ip} on ${holder.name} (${describeKind(holder)})`;
}

/** The interface that makes the address reachable: the agent's link if it is up, or another one. */
function holderOf(links: readonly NodeLink[], ip: string): NodeLink | undefined {
  return links.find((link) => {
    if (!link.ipv4.includes(ip)) return false;
    return link.name !== linkName || (link.up && isAdoptable(links, link));
  });
}

function findOwn(links: readonly NodeLink[]): NodeLink | undefined {
  return links.find((link) => link.name === linkName);
}

function isAdoptable(links: readonly NodeLink[], link: NodeLink): boolean {
  return ownKinds.includes(link.kind) && !links.some((other) => other.master === link.name);
}

function describeKind(link: NodeLink): string {
  return link.kind ?? 'device';
}

/** Adds a link of type dummy, or a bridge without ports if the kernel lacks dummy. */
async function addLink(host: Host): Promise<'dummy' | 'bridge'> {
  try {
    await runIp(host, ['link', 'add', linkName, 'type', 'dummy']);
    return 'dummy';
  } catch (error) {
    if (!(error instanceof RedirectError) || error.code !== 'UNSUPPORTED') throw error;
  }
  await runIp(host, ['link', 'add', linkName, 'type', 'bridge']);
  return 'bridge';
}

async function runIp(host: Host, args: readonly string[]): Promise<void> {
  outputOf(`ip ${args.slice(0, 2).join(' ')}`, 'ip', await host.run('ip', args));
}
