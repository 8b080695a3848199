/**
 * Types of the native addon, and the translation of its failures into RedirectError. The C side validates
 * every argument before it has any effect.
 */
import { closeSync, readFileSync } from 'node:fs';
import { loadAddon } from './native-files.ts';
import { cutFlows, cutSockets, isListening, ruleGeneration } from './connections.ts';
import type { OpenNetlink } from './netlink.ts';
import { hasLink, isLocal, ownsLink, placeOf } from './place.ts';
import { RedirectError } from '../redirect.ts';

/** Descriptor of an open map; `closeSync` releases it. */
export type BpfMap = number;

/** Pins by the names of maps or programs in the object file. */
export type Pins = Readonly<Record<string, string>>;

export interface LinkInfo {
  /** NaN for an object of another kind. */
  readonly programId: number;
  /** `enum bpf_attach_type`; NaN if it is not a link to a cgroup. */
  readonly attachType: number;
  /** 0 if the cgroup was deleted. */
  readonly cgroupId: bigint;
}

/** The programs' answer about a socket. */
export interface CallerAnswer {
  /** Of the pod of an attested caller. */
  readonly cgroupId: bigint;
  /** `enum nmi_kind` in nmi.h. */
  readonly kind: number;
}

/**
 * All functions are synchronous. A refusal of the kernel is thrown with code and step, which
 * `asRedirectError` translates; an invalid argument is thrown as TypeError.
 */
interface Addon {
  readonly openNetlink: OpenNetlink;
  /**
   * Loads the object file. Maps are shared through their pins: reused if pinned, else pinned. Only pinned
   * programs stay loaded.
   */
  load(object: Uint8Array, settings: Uint8Array, maps: Pins, programs: Pins): void;
  /** Attaches a pinned program to a cgroup, and pins the link. */
  attach(program: string, attachType: number, cgroup: string, pin: string): void;
  /** Replaces the program of a link by a pinned one, without a gap. */
  replace(program: string, pin: string): void;
  /** Opens a pinned object of any kind. Links and programs cannot be opened for reading only. */
  openPin(pin: string, readOnly: boolean): BpfMap;
  mapGet(map: BpfMap, key: Uint8Array): Uint8Array | undefined;
  mapSet(map: BpfMap, key: Uint8Array, value: Uint8Array): void;
  mapDelete(map: BpfMap, key: Uint8Array): boolean;
  mapKeys(map: BpfMap): readonly Uint8Array[];
  /**
   * Who opened an accepted connection; undefined if no program answers for this socket: the one of this layout
   * is not attached to the cgroup in which the listening socket was made, or to one above. Needs no capability.
   */
  callerOf(socket: number): CallerAnswer | undefined;
  /** Whether a program answers for the sockets that this process makes. */
  isAnswered(): boolean;
  /** Cookie of this process's network namespace; 0 if the kernel does not report it. */
  netnsCookie(): bigint;
  /**
   * Locks a file, which is created if absent. Undefined if another process has the lock. The descriptor is not
   * inherited by children; closing it, or the end of the process, releases the lock.
   */
  lockFile(path: string): number | undefined;
  isLocked(path: string): boolean;
  /**
   * Accepts the connections of a listening socket in a thread, also after `descriptor` is closed, and closes
   * those that send nothing for `patienceMs`. Returns a socket; from it, the descriptor of each of the others
   * is read, as a 32-bit number of this machine. Ending that socket ends all, and then it closes.
   */
  acceptEagerly(descriptor: number, patienceMs: number): number;
  /**
   * A string that is not copied. Its bytes must never change, and stay until the process ends: an asset of the
   * executable.
   */
  externalText(latin1: Uint8Array): string;
  /**
   * Unmaps pages of the program's file, of which many were needed for the start only, and returns freed memory
   * of the C library's allocator to the kernel; false if there was none.
   */
  trimMemory(): boolean;
}

export type NativeModule = Addon &
  ReturnType<typeof overNetlink> & {
    /** Of a pinned link, or the id of a pinned program. */
    readonly linkInfo: (pin: string) => LinkInfo;
  };

let loaded: NativeModule | undefined;

/**
 * The addon, loaded at the first call.
 * @throws RedirectError `UNSUPPORTED` if it cannot be loaded.
 */
export function nativeModule(): NativeModule {
  if (loaded !== undefined) return loaded;
  const exports = loadAddon();
  if (!isAddon(exports)) {
    throw new RedirectError('UNSUPPORTED', 'load native module', 'the file is another module');
  }
  loaded = { ...exports, ...overNetlink(exports.openNetlink), linkInfo: linkInfoBy(exports) };
  return loaded;
}

/** The functions that need no more of the addon than a socket. */
function overNetlink(open: OpenNetlink) {
  return {
    cutFlows: cutFlows.bind(undefined, open),
    cutSockets: cutSockets.bind(undefined, open),
    ruleGeneration: ruleGeneration.bind(undefined, open),
    placeOf: placeOf.bind(undefined, open),
    ownsLink: ownsLink.bind(undefined, open),
    isLocal: isLocal.bind(undefined, open),
    hasLink: hasLink.bind(undefined, open),
    isListening,
  };
}

/** As text of the kernel, by which it describes a descriptor of this process. */
function linkInfoBy(native: Addon): NativeModule['linkInfo'] {
  return (pin) => {
    const descriptor = native.openPin(pin, false);
    try {
      const text = readFileSync(`/proc/self/fdinfo/${descriptor}`, 'latin1');
      const find = (name: string): string | undefined =>
        new RegExp(`^${name}:\\t(\\d+)$`, 'm').exec(text)?.[1];
      return {
        programId: Number(find('prog_id')),
        attachType: Number(find('cgroup_id') && find('attach_type')),
        cgroupId: BigInt(find('cgroup_id') ?? 0),
      };
    } finally {
      closeSync(descriptor);
    }
  };
}

/** Built from the same sources, and part of the executable: one function stands for all of them. */
function isAddon(value: unknown): value is Addon {
  return typeof value === 'object' && value !== null && 'load' in value;
}

/** A failure as thrown by the C side, and by `Netlink`. */
interface NativeFailure extends Error {
  readonly code: string;
  readonly step: string;
  readonly detail?: string;
}

function isNativeFailure(error: unknown): error is NativeFailure {
  return (
    error instanceof Error &&
    !(error instanceof RedirectError) &&
    'step' in error &&
    typeof error.step === 'string' &&
    'code' in error &&
    typeof error.code === 'string'
  );
}

/** Opens a map for the duration of `use` and returns its result. @throws errors of the native module */
export function withMap<T>(
  native: NativeModule,
  pin: string,
  access: 'read' | 'write',
  use: (map: BpfMap) => T,
): T {
  const map = native.openPin(pin, access === 'read');
  try {
    return use(map);
  } finally {
    closeSync(map);
  }
}

/** Whether a call failed because the path does not exist. */
export function isMissing(error: unknown): boolean {
  return isNativeFailure(error) && error.code === 'ENOENT';
}

/** The RedirectError of a failed call; any other error is returned unchanged. */
export function asRedirectError(error: unknown): unknown {
  if (!isNativeFailure(error)) return error;
  const log = error.detail === undefined ? '' : ` (${summariseVerifierLog(error.detail)})`;
  return new RedirectError(codeOf(error), error.step, `${error.message}${log}`, error);
}

/** The kernel's full log of a failure, such as the verifier's; an error message contains a summary. */
export function kernelAccountOf(error: unknown): string | undefined {
  const cause = error instanceof RedirectError ? error.cause : error;
  return isNativeFailure(cause) ? cause.detail : undefined;
}

const statistics = /^(?:processed \d+ insns|verification time|stack depth)/;
const maxLines = 3;
const maxLineChars = 160;

/**
 * The last relevant lines: the verifier logs every step, then the reason, then statistics. Empty only for
 * an empty log; never throws; linear in the log.
 */
export function summariseVerifierLog(log: string): string {
  const lines = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const telling = lines.filter((line) => !statistics.test(line) && !line.startsWith(';'));
  const chosen = telling.length > 0 ? telling.slice(-maxLines) : lines.slice(-1);
  return chosen
    .map((line) => (line.length > maxLineChars ? `${line.slice(0, maxLineChars)}...` : line))
    .join(' | ');
}

function codeOf({ code, step }: NativeFailure): RedirectError['code'] {
  switch (code) {
    case 'EPERM':
      return 'NOT_PERMITTED';
    // The verifier refuses a program with this errno; in all other calls it means missing permission.
    case 'EACCES':
      return step === 'load' ? 'UNSUPPORTED' : 'NOT_PERMITTED';
    case 'ENOENT':
      // It was there a moment ago: another process installs or removes at the same time.
      if (step === 'open pin') return 'BUSY';
      // The netlink family is missing because its kernel module is not loaded.
      return step === 'list sockets' ? 'UNSUPPORTED' : 'KERNEL_REFUSED';
    case 'ENOSYS':
    case 'EOPNOTSUPP':
    case 'EPROTONOSUPPORT':
      return 'UNSUPPORTED';
    case 'EINVAL':
      return ['load', 'attach', 'list flows'].includes(step) ? 'UNSUPPORTED' : 'KERNEL_REFUSED';
    case 'EBUSY':
    case 'EAGAIN':
    case 'EEXIST':
      return 'BUSY';
    case 'ETIMEDOUT':
      return 'TIMEOUT';
    default:
      return 'KERNEL_REFUSED';
  }
}

/**
 * Calls the addon and translates its failures.
 * @throws RedirectError, and any other error of `work`.
 */
export function inKernel<T>(work: (native: NativeModule) => T): T {
  try {
    return work(nativeModule());
  } catch (error) {
    throw asRedirectError(error);
  }
}
