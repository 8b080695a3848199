/** Looks up the cgroup that opened a connection in the programs' map. Synchronous; one look-up if there is a record. */
import { closeSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { nativeModule, type BpfMap, type CallerRecord } from '../native/addon.ts';
import { readCounters } from './programs.ts';
import type { Attestation, Peer, RedirectTarget } from '../redirect.ts';
import { portsOf } from '../target.ts';

const unattested: Attestation = { kind: 'unattested' };
const unavailable = { kind: 'unavailable', why: 'the map of callers cannot be read' } as const;
const noRoom: Attestation = {
  kind: 'unattested',
  retryWhy:
    'this node had no room for a record of it, its pod has too many connections, or another pod used its address and port',
};
const sharedAddress = {
  kind: 'unavailable',
  why: 'another socket of this node has the same address and port',
} as const;
/** Longest time between a connect and the look-up of its record. */
const recentNs = 10_000_000_000n;
const mappedPrefix = '::ffff:';

/** Address and first port at which redirected connections arrive. */
export type Listen = Pick<RedirectTarget, 'listenIp' | 'listenPort'>;

export class Callers {
  readonly #pinFolder: string;
  readonly #listen: Listen;
  readonly #nowNs: () => bigint;
  #map: BpfMap | undefined;
  /**
   * Linux before 5.14 does not report the id of a network namespace. The programs then assume that the
   * node has the initial one, which is wrong if the node itself is a container.
   */
  #knowsNode = false;

  /**
   * @param listen address and first port at which redirected connections arrive.
   * @param nowNs CLOCK_MONOTONIC, which the programs use too.
   */
  constructor(pinFolder: string, listen: Listen, nowNs = () => process.hrtime.bigint()) {
    this.#pinFolder = pinFolder;
    this.#listen = listen;
    this.#nowNs = nowNs;
  }

  /**
   * Opens the pinned map: at first, and after programs of another layout were installed. If it cannot be
   * opened, look-ups are unavailable.
   * @throws errors of the native module.
   */
  refresh(): void {
    const native = nativeModule();
    this.#knowsNode = native.netnsCookie() !== 0n;
    const former = this.#map;
    this.#map = undefined;
    try {
      this.#map = native.openMap(join(this.#pinFolder, 'callers'), true);
    } finally {
      if (former !== undefined) closeSync(former);
    }
  }

  /** Why look-ups are unavailable, or undefined. */
  whyUnavailable(): string | undefined {
    return this.#map === undefined ? unavailable.why : undefined;
  }

  /** Never throws. */
  attest(peer: Peer): Attestation {
    if (this.#map === undefined) return unavailable;
    const ip = recordedIp(peer, this.#listen);
    if (ip === undefined) return unattested;
    try {
      const isWithinNode = this.#knowsNode && ip === plainIp(peer.localIp);
      const at = (port: number | undefined): CallerRecord | undefined =>
        port === undefined || this.#map === undefined
          ? undefined
          : nativeModule().lookupCaller(this.#map, ip, port, isWithinNode);
      const caller = at(peer.remotePort) ?? at(this.#originalPort(ip, peer));
      if (caller?.cgroupId === 0n) return sharedAddress;
      if (caller !== undefined) return { kind: 'attested', ...caller };
      return this.#wasRoomShort() ? noRoom : unattested;
    } catch {
      return unavailable;
    }
  }

  /**
   * The port that the connection has in its record, if netfilter gave it another one because a connection that
   * netfilter redirected has its address and port. Raw packets can make such connections for any address.
   */
  #originalPort(ip: string, { remotePort: port, localPort }: Peer): number | undefined {
    try {
      const server = { ip: this.#listen.listenIp, port: localPort };
      const original = nativeModule().originalPort({ ip, port }, server);
      return original === port ? undefined : original;
    } catch {
      // A kernel without netfilter's netlink: there, such a caller has no record.
      return undefined;
    }
  }

  /** Whether the map was full within `recentNs`, so that this connection may have got no record. */
  #wasRoomShort(): boolean {
    const counters = readCounters(this.#pinFolder);
    if (counters === undefined || counters.unrecorded === 0n) return false;
    return this.#nowNs() - counters.unrecordedAtNs < recentNs;
  }

  close(): void {
    if (this.#map !== undefined) closeSync(this.#map);
    this.#map = undefined;
  }
}

/**
 * The address of this connection's record, if there can be one. A record contains the client's address
 * and port but no destination: a connection to another destination than `listen` may use the same port.
 */
export function recordedIp(peer: Peer, listen: Listen): string | undefined {
  const isOurs =
    plainIp(peer.localIp) === listen.listenIp && portsOf(listen).includes(peer.localPort);
  if (!isOurs) return undefined;
  const ip = plainIp(peer.remoteIp);
  return isIPv4(ip) ? ip : undefined;
}

/** The IPv4 address behind an IPv4-mapped one, which a dual-stack socket reports. */
function plainIp(ip: string): string {
  return ip.startsWith(mappedPrefix) ? ip.slice(mappedPrefix.length) : ip;
}
