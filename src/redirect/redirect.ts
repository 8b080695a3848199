/**
 * The port between the agent and the kernel's redirect of pods' connections. Each mode is one
 * implementation; code outside this folder does not depend on the mode.
 *
 * Invariants of every mode: `install` is idempotent; rules of other programs are not touched; only
 * `remove` opens the node, a stop of the process does not.
 */
import { CodedError } from '../base/coded-error.ts';

export type RedirectMode = 'ebpf' | 'iptables' | 'none';

/** The redirected address and its new destination. */
export interface RedirectTarget {
  /** The address that pods connect to, normally 169.254.169.254, and its TCP port. */
  readonly metadataIp: string;
  readonly metadataPort: number;
  /**
   * The address that agents listen on. The usual one has this port, and the next port is for a second one, which
   * an update starts before the first one ends. The redirect points at one of both.
   */
  readonly listenIp: string;
  readonly listenPort: number;
}

/**
 * Connections of one pod that the kernel lets through: so many at once, then so many a second. The agent
 * accepts one after another, so a pod that connects without pause would delay all others. SDKs keep their
 * tokens, and open some connections an hour.
 */
export const connectRate = { perSec: 1_000, burst: 512 } as const;

/** State of the redirect, read from the kernel. `problems` is empty exactly when `state` is `active`. */
export interface RedirectStatus {
  readonly state: 'active' | 'broken' | 'absent' | 'off';
  /** One line for people: backend, link, chain. */
  readonly detail: string;
  /** Differences from the wanted state, as short sentences. */
  readonly problems: readonly string[];
  /** The port of an agent that the redirect points at now; absent if it points at none. */
  readonly port?: number | undefined;
  /** After `install`: the changes, as short sentences; empty if the state was as wanted. */
  readonly changed?: readonly string[];
}

/** An accepted connection. */
export interface Peer {
  /** As reported by the kernel. */
  readonly remoteIp: string;
  /** Descriptor. */
  readonly socket: number;
}

/** Where the kernel sends packets for an address. Links are indexes, which the kernel does not reuse. */
export interface Place {
  /** Link of the route. */
  readonly link: number;
  /** If that link is a bridge: its port that leads to the neighbor. */
  readonly port?: number;
  /** MAC of the neighbor, as `02:00:00:00:00:01`; absent if the route is for this address only. */
  readonly mac?: string;
}

/**
 * Result of the look-up of a caller in the kernel's records.
 * `by-address`: this mode has no records; source address and place identify the caller.
 * `attested`: the caller's pod was recorded at its connect.
 * `unattested`: this mode records callers and has no record of this one.
 * `by-link`: likewise, but the address is that of a pod with a network link of its own. A completed
 * handshake proves the link, since an answer reaches only that one. No mode returns this: the agent
 * decides it.
 * `unavailable`: this mode records callers, but the records cannot be read now; answer with 503.
 */
export type Attestation =
  | {
      readonly kind: 'by-address';
      /** At the time of the accept; absent if it was not looked up. */
      readonly place?: Place | 'unknown';
    }
  | {
      readonly kind: 'attested';
      /** Of the caller's pod. */
      readonly cgroupId: bigint;
      /**
       * The caller connected to the agent's own address. Only a proxy does so: it relays a connect that was
       * redirected before, and may belong to another pod than the one that it works for.
       */
      readonly isDirect?: boolean;
      /** Of a direct connect: the link that belongs to its source address alone, if there is one. */
      readonly place?: Place;
    }
  | { readonly kind: 'by-link'; readonly place: Place }
  | {
      readonly kind: 'unattested';
      /** Why the caller may have had no chance of a record: answer with 503. Absent: refuse it. */
      readonly retryWhy?: string;
      /** What keeps the caller from being known by its link, if that would be possible otherwise. */
      readonly refusedBy?: 'shared-link' | 'option';
    }
  | {
      readonly kind: 'unavailable';
      /** The missing part, as a clause. */
      readonly why: string;
    };

export interface Redirect {
  readonly mode: RedirectMode;
  /** Brings up the listen address, before any connection is redirected to it. */
  prepare(): Promise<void>;
  /**
   * Brings the kernel to the wanted state without a gap, and reads it back.
   * @param port of the agent that new connections go to; default: that of the installed redirect, or the first.
   */
  install(port?: number): Promise<RedirectStatus>;
  /** Reads back only. */
  verify(): Promise<RedirectStatus>;
  /**
   * After a `verify` without a problem: whether what pods' connections meet first (the programs, or the rules
   * of iptables alone; the agent's address) is still as it should be. Cheap enough for each check. False also
   * if only `verify` can determine it.
   * @param port where that `verify` found the redirect to point at.
   */
  isFrontWhole(port?: number): Promise<boolean>;
  /** Opens the node: removes everything that this mode created, and nothing else. */
  remove(): Promise<void>;
}

/** A failure of a tool or the kernel, with the step and the tool's or kernel's message. */
export class RedirectError extends CodedError<RedirectErrorCode> {
  readonly step: string;
  constructor(code: RedirectErrorCode, step: string, message: string, cause?: unknown) {
    super(code, `${step}: ${message}`, cause);
    this.step = step;
  }
}

export type RedirectErrorCode =
  /** A program the mode needs (iptables-restore, ip) is not on the PATH. */
  | 'TOOL_MISSING'
  /** A capability is missing. */
  | 'NOT_PERMITTED'
  /** The kernel lacks a feature. */
  | 'UNSUPPORTED'
  /** Another program uses an object that the mode needs. */
  | 'CONFLICT'
  /** A lock or a concurrent change; retry. */
  | 'BUSY'
  /** The tool failed for another reason. */
  | 'TOOL_FAILED'
  /** A system call failed in another way. */
  | 'KERNEL_REFUSED'
  /** A tool did not end in time. */
  | 'TIMEOUT';

type Unavailable = RedirectError & { readonly code: 'TOOL_MISSING' | 'UNSUPPORTED' };

/** Whether this node lacks a tool or a kernel feature, so that a retry is useless. */
export function isUnavailable(error: unknown): error is Unavailable {
  return (
    error instanceof RedirectError &&
    (error.code === 'TOOL_MISSING' || error.code === 'UNSUPPORTED')
  );
}
