/**
 * Who opened a connection, from the map that the programs keep: one look-up, synchronous. Opened
 * read-only, which needs no right but to read the pin: whoever answers requests can go without any.
 */
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { nativeModule, type BpfMap, type NativeModule } from '../native/addon.ts';
import type { Attestation, Peer, RedirectTarget } from '../redirect.ts';

const UNATTESTED: Attestation = { kind: 'unattested' };
const MAPPED = '::ffff:';

type Listen = Pick<RedirectTarget, 'listenIp' | 'listenPort'>;

export class Callers {
  readonly #pin: string;
  readonly #listen: Listen;
  #native: NativeModule | undefined;
  #map: BpfMap | undefined;

  /** @param listen where redirected connections arrive. */
  constructor(pinFolder: string, listen: Listen) {
    this.#pin = join(pinFolder, 'callers');
    this.#listen = listen;
  }

  /**
   * Opens the map that is pinned now: the first time, and after programs of another layout took
   * the place of those before. Where it cannot be opened nobody is attested.
   * @throws what the native module throws.
   */
  refresh(): void {
    const native = (this.#native ??= nativeModule());
    const former = this.#map;
    this.#map = undefined;
    try {
      this.#map = native.openMap(this.#pin, true);
    } finally {
      if (former !== undefined) native.close(former);
    }
  }

  /** The id of the open map, to be compared with that of the programs. */
  get mapId(): number | undefined {
    return this.#map === undefined ? undefined : this.#native?.mapInfo(this.#map).id;
  }

  /**
   * Never throws: who cannot be looked up is nobody. A record says who dialled from an address and a
   * port, not where to; elsewhere than where it led somebody else may come from the same.
   */
  attest(peer: Peer): Attestation {
    if (this.#map === undefined || this.#native === undefined) return UNATTESTED;
    const { listenIp, listenPort } = this.#listen;
    if (plainIp(peer.localIp) !== listenIp || peer.localPort !== listenPort) return UNATTESTED;
    const ip = plainIp(peer.remoteIp);
    if (!isIPv4(ip)) return UNATTESTED;
    try {
      const cgroupId = this.#native.lookupCaller(this.#map, ip, peer.remotePort);
      return cgroupId === undefined ? UNATTESTED : { kind: 'attested', cgroupId };
    } catch {
      return UNATTESTED;
    }
  }

  close(): void {
    if (this.#map !== undefined) this.#native?.close(this.#map);
    this.#map = undefined;
  }
}

/** Of a socket that listens on all addresses of both kinds. */
function plainIp(ip: string): string {
  return ip.startsWith(MAPPED) ? ip.slice(MAPPED.length) : ip;
}
