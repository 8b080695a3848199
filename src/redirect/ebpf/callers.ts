/** The process that opened a connection, from the map that the programs keep: one look-up, synchronous. */
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { nativeModule, type BpfMap, type NativeModule } from '../native/addon.ts';
import { readCounters } from './programs.ts';
import type { Attestation, Peer, RedirectTarget } from '../redirect.ts';

const UNATTESTED: Attestation = { kind: 'unattested' };
const UNAVAILABLE = { kind: 'unavailable', why: 'the map of callers cannot be read' } as const;
const NO_ROOM = {
  kind: 'unavailable',
  why: 'this node had no room for a record of it, or its pod has too many connections',
} as const;
const SHARED = {
  kind: 'unavailable',
  why: 'another socket of this node has the same address and port',
} as const;
/** How long a connection may have waited for the agent when its record is looked for. */
const RECENT_NS = 10_000_000_000n;
const MAPPED = '::ffff:';

/** Where redirected connections arrive. */
export type Listen = Pick<RedirectTarget, 'listenIp' | 'listenPort'>;

export class Callers {
  readonly #pinFolder: string;
  readonly #listen: Listen;
  readonly #nowNs: () => bigint;
  #native: NativeModule | undefined;
  #map: BpfMap | undefined;
  /**
   * Linux before 5.14 does not report which network namespace this is. The programs then take the initial
   * one for the node's, which it is not on a node that is a container.
   */
  #knowsNode = false;

  /**
   * @param listen where redirected connections arrive.
   * @param nowNs by CLOCK_MONOTONIC, which the programs read as well.
   */
  constructor(pinFolder: string, listen: Listen, nowNs = () => process.hrtime.bigint()) {
    this.#pinFolder = pinFolder;
    this.#listen = listen;
    this.#nowNs = nowNs;
  }

  /**
   * Opens the map that is pinned now: the first time, and after programs of another layout took
   * the place of those before. Where it cannot be opened nobody can be looked up.
   * @throws what the native module throws.
   */
  refresh(): void {
    const native = (this.#native ??= nativeModule());
    this.#knowsNode = native.netnsCookie() !== 0n;
    const former = this.#map;
    this.#map = undefined;
    try {
      this.#map = native.openMap(join(this.#pinFolder, 'callers'), true);
    } finally {
      if (former !== undefined) native.close(former);
    }
  }

  /** Why nobody can be looked up now, or undefined. */
  whyUnavailable(): string | undefined {
    return this.#map === undefined ? UNAVAILABLE.why : undefined;
  }

  /** Never throws. */
  attest(peer: Peer): Attestation {
    if (this.#map === undefined || this.#native === undefined) return UNAVAILABLE;
    const ip = recordedIp(peer, this.#listen);
    if (ip === undefined) return UNATTESTED;
    try {
      const isWithinNode = this.#knowsNode && ip === plainIp(peer.localIp);
      const cgroupId = this.#native.lookupCaller(this.#map, ip, peer.remotePort, isWithinNode);
      if (cgroupId === 0n) return SHARED;
      if (cgroupId !== undefined) return { kind: 'attested', cgroupId };
      return this.#wasRoomShort() ? NO_ROOM : UNATTESTED;
    } catch {
      return UNAVAILABLE;
    }
  }

  /** A moment ago the kernel let a connection go on without a record, which may be the one looked for. */
  #wasRoomShort(): boolean {
    const counters = readCounters(this.#pinFolder);
    if (counters === undefined || counters.unfiled === 0n) return false;
    return this.#nowNs() - counters.unfiledAtNs < RECENT_NS;
  }

  close(): void {
    if (this.#map !== undefined) this.#native?.close(this.#map);
    this.#map = undefined;
  }
}

/**
 * The address under which this connection's caller is recorded, if it is. A record names the caller at
 * an address and a port, not the destination: at another one than `listen`, another process may use
 * the same port.
 */
export function recordedIp(peer: Peer, { listenIp, listenPort }: Listen): string | undefined {
  if (plainIp(peer.localIp) !== listenIp || peer.localPort !== listenPort) return undefined;
  const ip = plainIp(peer.remoteIp);
  return isIPv4(ip) ? ip : undefined;
}

/** Of a socket that listens on all addresses of both kinds. */
function plainIp(ip: string): string {
  return ip.startsWith(MAPPED) ? ip.slice(MAPPED.length) : ip;
}
