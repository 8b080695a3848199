/**
 * The port between the agent and whatever makes the kernel bring a pod's connection to it.
 * A mode is one implementation; nothing outside this folder knows which one runs.
 *
 * Invariants every mode keeps: installing twice equals installing once; nobody else's rule is
 * touched; only `remove` opens the node again, never a stop of the process.
 */

/** `pinned` is another process's, as long as it is not known which mode that process has. */
export type RedirectMode = 'ebpf' | 'iptables' | 'address' | 'pinned' | 'none';

/** What is intercepted and where it is brought. */
export interface RedirectTarget {
  /** The address pods dial, normally 169.254.169.254, and its TCP port. */
  readonly metadataIp: string;
  readonly metadataPort: number;
  /** Where the agent listens. */
  readonly listenIp: string;
  readonly listenPort: number;
}

/** A read-back of the kernel. `problems` is empty exactly when `state` is `active`. */
export interface RedirectStatus {
  readonly state: 'active' | 'broken' | 'absent' | 'off';
  /** One line for people: backend, link, chain. */
  readonly detail: string;
  /** Each thing that differs from what is wanted, as a short sentence. */
  readonly problems: readonly string[];
  /** After `install`: what it changed, each as a short sentence; empty when nothing was to do. */
  readonly changed?: readonly string[];
}

/** The two ends of an accepted connection, as the kernel reports them. */
export interface Peer {
  readonly remoteIp: string;
  readonly remotePort: number;
  readonly localIp: string;
  readonly localPort: number;
}

/**
 * What the kernel says about who opened a connection.
 * `by-address`: this mode attests nothing, the source address is all there is.
 * `attested`: the caller's cgroup was recorded when it dialled.
 * `unattested`: this mode records callers and has no record of this one; refuse it.
 * `unavailable`: this mode records callers, and its records cannot be read now; ask to try again.
 */
export type Attestation =
  | { readonly kind: 'by-address' }
  | { readonly kind: 'attested'; readonly cgroupId: bigint }
  | { readonly kind: 'unattested' }
  | {
      readonly kind: 'unavailable';
      /** What is missing, as a clause. */
      readonly why: string;
    };

export interface Redirect {
  readonly mode: RedirectMode;
  /**
   * Brings up the address the listener binds, before anything is redirected to it. A mode that has to
   * wait for others gives up, without an error, when the signal aborts.
   */
  prepare(signal?: AbortSignal): Promise<void>;
  /** Brings the kernel to the wanted state, in one step without a gap, and reads it back. */
  install(): Promise<RedirectStatus>;
  /** Reads back only. */
  verify(): Promise<RedirectStatus>;
  /** Opens the node again: takes away all this mode ever made, and only that. */
  remove(): Promise<void>;
  /** One look-up per connection; must not block. A mode that asks another process answers later. */
  attest(peer: Peer): Attestation | Promise<Attestation>;
  /** Why nobody can be looked up now, or undefined. Modes that look nobody up have none. */
  whyUnavailable?(): string | undefined;
}

/** A failure at the kernel boundary: which step, and what the tool or kernel answered. */
export class RedirectError extends Error {
  readonly code: RedirectErrorCode;
  readonly step: string;
  constructor(code: RedirectErrorCode, step: string, message: string, cause?: unknown) {
    super(`${step}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = 'RedirectError';
    this.code = code;
    this.step = step;
  }
}

export type RedirectErrorCode =
  /** A program the mode needs (iptables-restore, ip) is not on the PATH. */
  | 'TOOL_MISSING'
  /** The kernel refused for want of a capability. */
  | 'NOT_PERMITTED'
  /** The kernel lacks a feature. */
  | 'UNSUPPORTED'
  /** Somebody else has what the mode needs. */
  | 'CONFLICT'
  /** A lock or a concurrent change; trying again is right. */
  | 'BUSY'
  /** The tool answered something else. */
  | 'TOOL_FAILED'
  /** A system call failed in another way. */
  | 'KERNEL_REFUSED'
  /** A tool did not end in time. */
  | 'TIMEOUT';

type Unavailable = RedirectError & { readonly code: 'TOOL_MISSING' | 'UNSUPPORTED' };

/** Whether this node lacks a tool or a feature of the kernel: trying again changes nothing. */
export function isUnavailable(error: unknown): error is Unavailable {
  return (
    error instanceof RedirectError &&
    (error.code === 'TOOL_MISSING' || error.code === 'UNSUPPORTED')
  );
}
