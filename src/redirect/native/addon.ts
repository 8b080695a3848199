/**
 * The addon as TypeScript sees it: its functions, and its failures turned into the one coded error
 * of this folder. The C side validates every argument and throws before it does anything.
 */
import { loadAddon } from './native-files.ts';
import { RedirectError } from '../redirect.ts';
import { summariseVerifierLog } from './verifier-log.ts';

declare const programsMark: unique symbol;
declare const mapMark: unique symbol;

/** Loaded programs; let go of by `close`, or when collected. */
export interface Programs {
  readonly [programsMark]: true;
}

/** An open map; let go of by `close`, or when collected. */
export interface BpfMap {
  readonly [mapMark]: true;
}

export interface LinkInfo {
  readonly id: number;
  readonly programId: number;
  /** `enum bpf_link_type`; 3 is a link to a cgroup. */
  readonly type: number;
  /** `enum bpf_attach_type`. */
  readonly attachType: number;
  /** 0 when the cgroup is gone. */
  readonly cgroupId: bigint;
}

export interface ProgramInfo {
  readonly id: number;
  readonly mapIds: readonly number[];
}

export interface MapInfo {
  readonly id: number;
  readonly valueSize: number;
}

/** For each feature 0: supported; positive: not, with this errno; negative: could not tell. */
export interface KernelAnswers {
  readonly connect: number;
  readonly peername: number;
  readonly sockOps: number;
  readonly socketStorage: number;
  readonly cgroupId: number;
  readonly cgroupLink: number;
}

export interface FlowEnd {
  readonly ip: string;
  readonly port: number;
}

/**
 * All are synchronous. What the kernel refuses is thrown with errno and step, for `asRedirectError`
 * to translate; an argument that is none as TypeError.
 */
export interface NativeModule {
  probe(): KernelAnswers;
  /** Maps named in `pins` are shared through these paths: reused where pinned, else pinned. */
  load(object: Uint8Array, settings: Uint8Array, pins: Readonly<Record<string, string>>): Programs;
  close(handle: Programs | BpfMap): void;
  pinProgram(programs: Programs, name: string, pin: string): void;
  attach(programs: Programs, name: string, cgroup: string, pin: string): void;
  /** Puts a program in the place of a link's present one, without a gap. */
  replace(programs: Programs, name: string, pin: string): void;
  detach(pin: string): void;
  linkInfo(pin: string): LinkInfo;
  programInfo(pin: string): ProgramInfo;
  openMap(pin: string, readOnly: boolean): BpfMap;
  mapInfo(map: BpfMap): MapInfo;
  mapGet(map: BpfMap, key: Uint8Array): Uint8Array | undefined;
  mapSet(map: BpfMap, key: Uint8Array, value: Uint8Array): void;
  mapDelete(map: BpfMap, key: Uint8Array): boolean;
  mapKeys(map: BpfMap): readonly Uint8Array[];
  /**
   * The cgroup that a client's address and port is filed under; 0 where two sockets are.
   * @param withinNode both ends of the connection have an address of the node.
   */
  lookupCaller(
    map: BpfMap,
    clientIp: string,
    clientPort: number,
    withinNode: boolean,
  ): bigint | undefined;
  /**
   * Forgets tracked TCP connections to `dialled` that `answeredBy` does not answer, or whoever
   * answers them, except from these sources.
   */
  cutFlows(
    dialled: FlowEnd,
    answeredBy: FlowEnd | undefined,
    sparedSources: readonly string[],
  ): number;
  /** The cgroups of this namespace's TCP sockets that are connected to `dialled`. */
  socketCgroups(dialled: FlowEnd): readonly bigint[];
  /** Closes those that are of one of these cgroups. */
  cutSockets(dialled: FlowEnd, cgroupIds: readonly bigint[]): number;
  /** Of the network namespace of this process; 0 where the kernel does not report it. */
  netnsCookie(): bigint;
  /** Gives what the C library's allocator keeps of freed memory back to the kernel, if anything. */
  trimMemory(): boolean;
}

const FUNCTIONS = {
  probe: true,
  load: true,
  close: true,
  pinProgram: true,
  attach: true,
  replace: true,
  detach: true,
  linkInfo: true,
  programInfo: true,
  openMap: true,
  mapInfo: true,
  mapGet: true,
  mapSet: true,
  mapDelete: true,
  mapKeys: true,
  lookupCaller: true,
  cutFlows: true,
  socketCgroups: true,
  cutSockets: true,
  netnsCookie: true,
  trimMemory: true,
} satisfies Record<keyof NativeModule, true>;

let loaded: NativeModule | undefined;

/**
 * The addon, loaded at the first call.
 * @throws RedirectError `UNSUPPORTED` where it cannot be loaded.
 */
export function nativeModule(): NativeModule {
  loaded ??= wrap(loadAddon());
  return loaded;
}

function wrap(exports: unknown): NativeModule {
  if (!isNativeModule(exports)) {
    throw new RedirectError('UNSUPPORTED', 'load native module', 'it is of another version');
  }
  return exports;
}

function isNativeModule(value: unknown): value is NativeModule {
  if (typeof value !== 'object' || value === null) return false;
  const members = new Map<string, unknown>(Object.entries(value));
  return Object.keys(FUNCTIONS).every((name) => typeof members.get(name) === 'function');
}

/** A failure as the C side throws it. */
interface NativeFailure extends Error {
  readonly code: string;
  readonly errno: number;
  readonly step: string;
  readonly detail?: string;
}

function isNativeFailure(error: unknown): error is NativeFailure {
  return (
    error instanceof Error &&
    'errno' in error &&
    typeof error.errno === 'number' &&
    'step' in error &&
    typeof error.step === 'string' &&
    'code' in error &&
    typeof error.code === 'string'
  );
}

/** What `use` makes of a map that is open for that moment. @throws what the native module throws. */
export function withMap<T>(
  native: NativeModule,
  pin: string,
  access: 'read' | 'write',
  use: (map: BpfMap) => T,
): T {
  const map = native.openMap(pin, access === 'read');
  try {
    return use(map);
  } finally {
    native.close(map);
  }
}

/** Whether a call failed because there is nothing at that path. */
export function isMissing(error: unknown): boolean {
  return isNativeFailure(error) && error.code === 'ENOENT';
}

/** What a failed call means to those above; errors of other kinds come back as they are. */
export function asRedirectError(error: unknown): unknown {
  if (!isNativeFailure(error)) return error;
  const log = error.detail === undefined ? '' : ` (${summariseVerifierLog(error.detail)})`;
  return new RedirectError(codeOf(error), error.step, `${error.message}${log}`, error);
}

/** All that the kernel wrote down of a failure, as the verifier does; a message has its summary. */
export function kernelAccountOf(error: unknown): string | undefined {
  const cause = error instanceof RedirectError ? error.cause : error;
  return isNativeFailure(cause) ? cause.detail : undefined;
}

function codeOf({ code, step }: NativeFailure): RedirectError['code'] {
  switch (code) {
    case 'EPERM':
      return 'NOT_PERMITTED';
    // The verifier refuses a program with it; everything else that does is permissions.
    case 'EACCES':
      return step === 'load' ? 'UNSUPPORTED' : 'NOT_PERMITTED';
    case 'ENOENT':
      // No such netlink family: a module that is not there.
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
 * Works with the addon; what goes wrong there comes out as the error of this folder.
 * @throws RedirectError, and whatever else the work throws.
 */
export function inKernel<T>(work: (native: NativeModule) => T): T {
  try {
    return work(nativeModule());
  } catch (error) {
    throw asRedirectError(error);
  }
}
