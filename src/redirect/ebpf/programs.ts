/**
 * The programs in the kernel: brought to the wanted state, read back, taken away. Everything goes by
 * pins, so any process finds what an earlier one left.
 *
 * 1. An upgrade replaces each program of its link in one step; a link to another cgroup is made
 *    anew beside the old one before that goes. Two of ours on one connect do no harm: the second
 *    sees a destination that is no longer the metadata address.
 * 2. What writes callers down is attached before what redirects, and what is exempt is filed before
 *    both, so no redirected connection is without its record for want of order.
 * 3. Maps are shared by successive programs, so living connections keep their records.
 */
import { join } from 'node:path';
import { listCgroupIds } from '../cgroup/cgroup-tree.ts';
import { decodeSettings, diffSettings, encodeSettings, type ProgramSettings } from './settings.ts';
import { isBpffs, listPins, promotePin, removePinFolder, SHARED_MAPS, unpin } from './pins.ts';
import { addExempt, diffExempt, readExempt, syncExempt } from './exempt-cgroups.ts';
import {
  inKernel,
  isMissing,
  withMap,
  type MapInfo,
  type NativeModule,
  type Programs,
} from '../native/addon.ts';
import { RedirectError } from '../redirect.ts';

/** What the kernel is to hold. */
export interface WantedPrograms {
  readonly pinFolder: string;
  /** The ELF file with the programs. */
  readonly object: Uint8Array;
  readonly settings: ProgramSettings;
  /** The cgroup whose processes are redirected, with all below it. */
  readonly cgroup: { readonly path: string; readonly id: bigint };
  /** Cgroups that are not, each with all below it. */
  readonly exempt: readonly bigint[];
}

interface Hook {
  readonly name: string;
  readonly program: string;
  /** `enum bpf_attach_type` */
  readonly attachType: number;
}

/** In the order of attaching. */
const HOOKS: readonly Hook[] = [
  { name: 'bind6', program: 'nmi_bind6', attachType: 9 },
  { name: 'bind4', program: 'nmi_bind4', attachType: 8 },
  { name: 'sockops', program: 'nmi_sockops', attachType: 3 },
  { name: 'getpeername4', program: 'nmi_peername4', attachType: 29 },
  { name: 'getpeername6', program: 'nmi_peername6', attachType: 30 },
  { name: 'connect6', program: 'nmi_connect6', attachType: 11 },
  { name: 'connect4', program: 'nmi_connect4', attachType: 10 },
];

/** Their pins, what redirects first, what keeps the agent's place last. */
const LINKS = HOOKS.toReversed().map(({ name }) => `link_${name}`);

/** Pins of what keeps the agent's address and port. */
export const PLACE_LINKS = ['link_bind4', 'link_bind6'] as const;

const CGROUP_LINK = 3;
const SETTINGS_MAP = '.rodata.nmi';

/**
 * Loads the programs and puts them in place; returns what it changed.
 * @throws RedirectError
 */
export function installPrograms(wanted: WantedPrograms): readonly string[] {
  return inKernel((native) => {
    const { pinFolder, cgroup } = wanted;
    for (const name of listPins(pinFolder)) {
      if (name.startsWith('next_')) unpin(pinFolder, name);
    }
    const { programs, changes } = load(native, wanted);
    try {
      changes.push(...syncExempt(native, pinFolder, wanted.exempt));
      for (const hook of HOOKS) {
        native.pinProgram(programs, hook.program, join(pinFolder, `next_program_${hook.name}`));
        const link = join(pinFolder, `link_${hook.name}`);
        if (isLinkedTo(native, link, hook, cgroup.id)) {
          native.replace(programs, hook.program, link);
          changes.push(`program ${hook.name} replaced`);
        } else {
          const next = join(pinFolder, `next_link_${hook.name}`);
          native.attach(programs, hook.program, cgroup.path, next);
          promotePin(pinFolder, `link_${hook.name}`);
          changes.push(`program ${hook.name} attached`);
        }
        promotePin(pinFolder, `program_${hook.name}`);
      }
      promotePin(pinFolder, 'settings');
    } finally {
      native.close(programs);
    }
    return changes;
  });
}

/**
 * Exempts what is to be exempt from programs that an earlier process pinned; nothing where there are
 * none.
 * @throws RedirectError
 */
export function exemptFromPinned({ pinFolder, exempt }: WantedPrograms): void {
  if (!listPins(pinFolder).includes('exempt')) return;
  inKernel((native) => addExempt(native, pinFolder, exempt));
}

/**
 * Loads the programs for the question whether this kernel takes them, and lets go of them. With the maps
 * that are pinned: before Linux 5.11 a second set of them is more than systemd lets a service lock (8 MiB).
 * @throws RedirectError
 */
export function tryPrograms(
  pinFolder: string,
  object: Uint8Array,
  settings: ProgramSettings,
): void {
  inKernel((native) => {
    const present = readSettings(native, pinFolder);
    const isShared = present !== 'absent' && present?.layout === settings.layout;
    const pinned = isShared ? SHARED_MAPS.filter((name) => listPins(pinFolder).includes(name)) : [];
    const pins = Object.fromEntries(pinned.map((name) => [name, join(pinFolder, name)]));
    native.close(native.load(object, encodeSettings(settings), pins));
  });
}

/** Pinned maps of another shape make way: their records are of no use to these programs. */
function load(
  native: NativeModule,
  wanted: WantedPrograms,
): { readonly programs: Programs; readonly changes: string[] } {
  const changes: string[] = [];
  const present = readSettings(native, wanted.pinFolder);
  if (present !== 'absent' && present?.layout !== wanted.settings.layout) {
    for (const name of SHARED_MAPS) unpin(wanted.pinFolder, name);
    changes.push('maps of another layout left behind');
  }
  const pins: Record<string, string> = { [SETTINGS_MAP]: join(wanted.pinFolder, 'next_settings') };
  for (const name of SHARED_MAPS) pins[name] = join(wanted.pinFolder, name);
  return { programs: native.load(wanted.object, encodeSettings(wanted.settings), pins), changes };
}

/**
 * What differs from what is wanted, as short sentences.
 * @returns `absent` when nothing of ours is there.
 * @throws RedirectError
 */
export function diffPrograms(wanted: WantedPrograms): 'absent' | readonly string[] {
  if (listPins(wanted.pinFolder).length === 0) return 'absent';
  return inKernel((native) => {
    const { pinFolder } = wanted;
    const settings = mapInfoOf(native, join(pinFolder, 'settings'));
    const callers = mapInfoOf(native, join(pinFolder, 'callers'));
    const missing: string[] = [];
    if (settings === undefined) missing.push('settings missing');
    if (callers === undefined) missing.push('map of callers missing');
    const present = readSettings(native, pinFolder);
    return [
      ...missing,
      ...(present === 'absent' ? [] : diffSettings(present, wanted.settings)),
      ...HOOKS.flatMap((hook) => diffHook(native, wanted, hook, settings, callers)),
      ...diffExemptMap(native, wanted),
    ];
  });
}

function diffExemptMap(native: NativeModule, { pinFolder, exempt }: WantedPrograms) {
  const present = unlessMissing(() => readExempt(native, pinFolder));
  return present === undefined ? ['map of exempt cgroups missing'] : diffExempt(present, exempt);
}

function diffHook(
  native: NativeModule,
  wanted: WantedPrograms,
  hook: Hook,
  settings: MapInfo | undefined,
  callers: MapInfo | undefined,
): readonly string[] {
  const link = unlessMissing(() => native.linkInfo(join(wanted.pinFolder, `link_${hook.name}`)));
  if (link === undefined) return [`program ${hook.name} not attached`];
  if (link.type !== CGROUP_LINK || link.attachType !== hook.attachType) {
    return [`link ${hook.name} is of another kind`];
  }
  if (link.cgroupId === 0n) return [`program ${hook.name} detached, its cgroup is gone`];
  if (link.cgroupId !== wanted.cgroup.id) {
    return [`program ${hook.name} attached to cgroup ${link.cgroupId}`];
  }
  const pin = join(wanted.pinFolder, `program_${hook.name}`);
  const program = unlessMissing(() => native.programInfo(pin));
  if (program?.id !== link.programId) return [`program ${hook.name} is not the one we know`];
  const uses = (map: MapInfo | undefined) => map === undefined || program.mapIds.includes(map.id);
  if (!uses(settings)) return [`program ${hook.name} has other settings`];
  if (hook.name === 'sockops' && !uses(callers)) return ['callers are filed in another map'];
  return [];
}

function isLinkedTo(native: NativeModule, pin: string, hook: Hook, cgroupId: bigint): boolean {
  const link = unlessMissing(() => native.linkInfo(pin));
  return (
    link?.type === CGROUP_LINK && link.attachType === hook.attachType && link.cgroupId === cgroupId
  );
}

/**
 * Closes the sockets of this network namespace that reach the real endpoint though they should not:
 * pods on the host network may keep connections from before the programs were there, which no rule
 * of netfilter can tell from the node's own. Returns how many there were.
 * @throws RedirectError
 */
export function cutOlderSockets(wanted: WantedPrograms): number {
  return inKernel((native) => {
    const { metadataIp, metadataPort } = wanted.settings.target;
    const dialled = { ip: metadataIp, port: metadataPort };
    const users = native.socketCgroups(dialled);
    if (users.length === 0) return 0;
    const redirected = listCgroupIds(wanted.cgroup.path, readExempt(native, wanted.pinFolder));
    const meant = users.filter((id) => redirected.has(id));
    return meant.length === 0 ? 0 : native.cutSockets(dialled, meant);
  });
}

/** Takes everything of ours away, what redirects first. @throws RedirectError */
export function removePrograms(pinFolder: string): void {
  const names = listOwnPins(pinFolder);
  for (const link of LINKS.filter((name) => names.includes(name))) {
    detachAtOnce(join(pinFolder, link));
  }
  unpinPrograms(pinFolder);
}

/** Taking the pin away detaches too, but only when the kernel comes round to it. */
function detachAtOnce(pin: string): void {
  try {
    inKernel((native) => native.detach(pin));
  } catch (error) {
    // It takes CAP_BPF, which somebody who only cleans up may not have.
    if (!(error instanceof RedirectError) || error.code !== 'NOT_PERMITTED') throw error;
  }
}

/**
 * Unlinks all of our pins, what redirects first. Takes no right but to write there; the kernel
 * detaches what nothing else holds within milliseconds.
 * @throws RedirectError
 */
export function unpinPrograms(pinFolder: string): void {
  const names = listOwnPins(pinFolder);
  const links = LINKS.filter((name) => names.includes(name));
  for (const name of new Set([...links, ...names])) unpin(pinFolder, name);
  removePinFolder(pinFolder);
}

/** What of ours is pinned, by name. @throws RedirectError where it may not be looked at. */
export function listOwnPins(pinFolder: string): readonly string[] {
  const names = listPins(pinFolder).filter(isOurs);
  // Files of these names in another file system are somebody's own.
  return names.length > 0 && isBpffs(pinFolder) ? names : [];
}

function isOurs(name: string): boolean {
  const bare = name.replace(/^next_/, '');
  if (bare === 'settings' || SHARED_MAPS.some((map) => map === bare)) return true;
  return HOOKS.some((hook) => bare === `link_${hook.name}` || bare === `program_${hook.name}`);
}

function mapInfoOf(native: NativeModule, pin: string): MapInfo | undefined {
  return unlessMissing(() => withMap(native, pin, 'read', (map) => native.mapInfo(map)));
}

/** The one value of an array. */
function readFirst(native: NativeModule, pin: string): Uint8Array | undefined {
  const first = new Uint8Array(4);
  return unlessMissing(() => withMap(native, pin, 'read', (map) => native.mapGet(map, first)));
}

/** The settings of the programs that are there; undefined when they cannot be understood. */
function readSettings(
  native: NativeModule,
  pinFolder: string,
): ProgramSettings | 'absent' | undefined {
  const bytes = readFirst(native, join(pinFolder, 'settings'));
  return bytes === undefined ? 'absent' : decodeSettings(bytes);
}

/** What the programs have counted since their maps were made. */
export interface ProgramCounters {
  readonly redirected: bigint;
  /** Of these, from IPv4-mapped IPv6 sockets. */
  readonly redirectedMapped: bigint;
  readonly exempt: bigint;
  readonly filed: bigint;
  readonly forgotten: bigint;
  /** Refused in connect: the pod holds too many connections. */
  readonly refused: bigint;
  /** Redirected without a record, since there was no room; the agent asks these to try again. */
  readonly unfiled: bigint;
  /** When that happened last, by CLOCK_MONOTONIC. */
  readonly unfiledAtNs: bigint;
}

/** Undefined while no programs are installed. @throws RedirectError */
export function readCounters(pinFolder: string): ProgramCounters | undefined {
  return inKernel((native) => {
    const bytes = readFirst(native, join(pinFolder, 'counters'));
    if (bytes === undefined) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const at = (index: number) => view.getBigUint64(8 * index, true);
    return {
      redirected: at(0),
      redirectedMapped: at(1),
      exempt: at(2),
      filed: at(3),
      forgotten: at(4),
      refused: at(5),
      unfiled: at(6),
      unfiledAtNs: at(7),
    };
  });
}

function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}
