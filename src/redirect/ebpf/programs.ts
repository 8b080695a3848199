/**
 * Installs, verifies and removes the programs. All objects are pinned, so each process finds those of
 * an earlier one.
 *
 * 1. An upgrade replaces the program of each link atomically. A link to another cgroup is created before
 *    the old one is removed. Two programs on one connect do no harm: the second one sees the rewritten
 *    destination.
 * 2. Exempt cgroups are added first, then the recording programs are attached, then the redirecting ones,
 *    so that every redirected connection has a record.
 * 3. Successive programs share their maps, so open connections keep their records.
 */
import { join } from 'node:path';
import { listCgroupIds } from '../cgroup/cgroup-tree.ts';
import { diffSettings, isSameLayout, listenPortOf, settingsOf } from './settings.ts';
import { isBpffs, listPins, promotePin, removePinFolder, sharedMaps, unpin } from './pins.ts';
import { diffCgroups, readCgroups, syncCgroups, type CgroupSet } from './cgroup-sets.ts';
import { inKernel, isMissing, withMap, type NativeModule } from '../native/addon.ts';
import { readPrograms } from '../native/native-files.ts';
import { RedirectError, type RedirectTarget } from '../redirect.ts';
import { defaultTarget } from '../target.ts';

/** The wanted state of the kernel. */
export interface WantedPrograms {
  readonly pinFolder: string;
  /** ELF object file of the programs. */
  readonly object: Uint8Array;
  readonly settings: Uint8Array;
  /** Processes in this cgroup are redirected, descendants included. */
  readonly cgroup: { readonly path: string; readonly id: bigint };
  /** Processes in these cgroups are not redirected, descendants included. */
  readonly exempt: readonly bigint[];
  /** Processes in this cgroup ask their sockets for callers, descendants included: that of the agent's pod. */
  readonly agent: { readonly path: string; readonly id: bigint };
  /** Cgroups of pods on the host network that are not redirected; undefined: not known yet. */
  readonly nodePods?: readonly bigint[] | undefined;
}

interface Hook {
  readonly name: string;
  /** `enum bpf_attach_type` */
  readonly attachType: number;
}

/** In order of attachment. */
const hooks: readonly [Hook, ...Hook[]] = [
  { name: 'getsockopt', attachType: 21 },
  { name: 'bind6', attachType: 9 },
  { name: 'bind4', attachType: 8 },
  { name: 'sockops', attachType: 3 },
  { name: 'connect6', attachType: 11 },
  { name: 'connect4', attachType: 10 },
];

/** The name of a link's pin. Each agent has one of its own, since two run at the same time during an update. */
function linkName({ name }: Hook, agentId: bigint): string {
  return name === 'getsockopt' ? `link_${name}_${agentId}` : `link_${name}`;
}

function cgroupOf({ name }: Hook, { agent, cgroup }: WantedPrograms): WantedPrograms['cgroup'] {
  return name === 'getsockopt' ? agent : cgroup;
}

const agentLink = /^link_getsockopt_\d+$/;

/** Pins of the programs that reserve the agent's address and port. */
export const bindLinks = ['link_bind4', 'link_bind6'] as const;

const hookNames = hooks.map(({ name }) => name).join('|');
const ownPin = new RegExp(
  `^(?:next_)?(?:settings|${sharedMaps.join('|')}|link_getsockopt_\\d+|(?:link|program)_(?:${hookNames}))$`,
);

const settingsMap = '.rodata.nmi';

/**
 * Loads and attaches the programs; returns the changes as short sentences.
 * @throws RedirectError
 */
export function installPrograms(wanted: WantedPrograms): readonly string[] {
  return inKernel((native) => {
    const { pinFolder, agent, exempt } = wanted;
    for (const name of listPins(pinFolder)) {
      if (name.startsWith('next_')) unpin(pinFolder, name);
    }
    const changes = load(native, wanted);
    changes.push(...syncSets(native, wanted));
    for (const hook of hooks) {
      const { name, attachType } = hook;
      const program = join(pinFolder, `next_program_${name}`);
      const link = join(pinFolder, linkName(hook, agent.id));
      if (isLinkedTo(native, link, attachType, cgroupOf(hook, wanted).id)) {
        native.replace(program, link);
        changes.push(`program ${name} replaced`);
      } else {
        attach(native, wanted, hook, program);
        changes.push(`program ${name} attached`);
      }
      promotePin(pinFolder, `program_${name}`);
    }
    promotePin(pinFolder, 'settings');
    const kept = [agent.id, ...exempt].map((id) => `_${id}`);
    for (const name of listPins(pinFolder).filter((each) => agentLink.test(each))) {
      if (!kept.some((end) => name.endsWith(end))) unpin(pinFolder, name);
    }
    return changes;
  });
}

function attach(native: NativeModule, wanted: WantedPrograms, hook: Hook, program: string): void {
  const { pinFolder, agent } = wanted;
  const link = linkName(hook, agent.id);
  const { path } = cgroupOf(hook, wanted);
  native.attach(program, hook.attachType, path, join(pinFolder, `next_${link}`));
  promotePin(pinFolder, link);
}

/** Makes both maps of cgroups the wanted ones; returns the changes as short sentences. */
function syncSets(native: NativeModule, wanted: WantedPrograms): readonly string[] {
  return wantedSets(wanted).flatMap(([set, ids]) =>
    syncCgroups(native, wanted.pinFolder, set, ids),
  );
}

function wantedSets({
  exempt,
  nodePods,
}: WantedPrograms): readonly (readonly [CgroupSet, readonly bigint[]])[] {
  const known = nodePods === undefined ? [] : [['node_pods', nodePods] as const];
  return [['exempt', exempt], ...known];
}

/**
 * Redirects other pods on the host network than before, if there are programs, and cuts the connections of
 * those that are redirected from now on.
 * @throws RedirectError
 */
export function changeNodePods(wanted: WantedPrograms, target: RedirectTarget): void {
  if (!listPins(wanted.pinFolder).includes('node_pods')) return;
  const changes = inKernel((native) => syncSets(native, wanted));
  if (changes.length > 0) cutOlderSockets(wanted, target);
}

/**
 * Adds the agent to the pinned programs of an earlier process, if there are any: they do not redirect it, and
 * answer it who calls. Those of another layout cannot, so it gets one with maps of its own, which knows no caller, and
 * says so, until the redirect moves here: without an answer the agent is not ready, and then it would never move.
 * @throws RedirectError
 */
export function joinPinned(wanted: WantedPrograms): void {
  const { pinFolder, exempt, agent } = wanted;
  if (!listPins(pinFolder).includes('exempt')) return;
  inKernel((native) => {
    // The earlier process that added the others may still run.
    const others = readCgroups(native, pinFolder, 'exempt');
    syncCgroups(native, pinFolder, 'exempt', [...new Set([...others, ...exempt])]);
    const present = readValue(native, pinFolder, 'settings');
    const [hook] = hooks;
    const { name, attachType } = hook;
    if (present === undefined) return;
    if (isLinkedTo(native, join(pinFolder, linkName(hook, agent.id)), attachType, agent.id)) return;
    if (isSameLayout(present, wanted.settings)) {
      attach(native, wanted, hook, join(pinFolder, `program_${name}`));
      return;
    }
    const own = `next_program_${name}`;
    const counters = join(pinFolder, 'next_counters');
    for (const each of [own, 'next_counters']) unpin(pinFolder, each);
    const pins = { [`nmi_${name}`]: join(pinFolder, own) };
    native.load(wanted.object, wanted.settings, { counters }, pins);
    excuseUnrecorded(native, counters, neverNs);
    attach(native, wanted, hook, join(pinFolder, own));
    for (const each of [own, 'next_counters']) unpin(pinFolder, each);
  });
}

/** A time of CLOCK_MONOTONIC that does not come. */
const neverNs = 2n ** 62n;
/** `unrecorded` and `unrecorded_at_ns` of `struct nmi_counters`, in every layout. */
const unrecordedAt = 8 * 6;

/**
 * Who has no record in these maps gets a 503 until ten seconds after that time, and no final 403. For maps that the
 * programs in front of the agents do not write into, and for those that they have just begun with. The kernel says so
 * to the agent by the answer of its socket, so an agent without privileges knows it from the moment on that it is true.
 */
function excuseUnrecorded(native: NativeModule, pin: string, atNs: bigint): void {
  const first = new Uint8Array(4);
  unlessMissing(() =>
    withMap(native, pin, 'write', (map) => {
      const bytes = native.mapGet(map, first);
      if (bytes === undefined || bytes.length < unrecordedAt + 16) return;
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      if (view.getBigUint64(unrecordedAt, true) === 0n) view.setBigUint64(unrecordedAt, 1n, true);
      view.setBigUint64(unrecordedAt + 8, atNs, true);
      native.mapSet(map, first, bytes);
    }),
  );
}

/** Attempts before a refusal is accepted that may be a transient lack of memory. */
const maxTries = 3;

/** Why the kernel refuses the programs; undefined if it accepts them. */
export function findRefusal(pinFolder: string): RedirectError | undefined {
  let refusal: RedirectError | undefined;
  for (let tries = 0; tries < maxTries; tries += 1) {
    try {
      tryPrograms(pinFolder, readPrograms());
      return undefined;
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      refusal = error;
      if (error.code === 'UNSUPPORTED' || error.code === 'NOT_PERMITTED') break;
    }
  }
  return refusal;
}

/**
 * Loads the programs and closes them. It uses the pinned maps: before Linux 5.11 a second set of maps
 * exceeds the locked memory of a systemd service (8 MiB).
 * @throws RedirectError
 */
export function tryPrograms(pinFolder: string, object: Uint8Array): void {
  const settings = settingsOf(object, defaultTarget, defaultTarget.listenPort);
  inKernel((native) => {
    const present = readValue(native, pinFolder, 'settings');
    const isShared = present !== undefined && isSameLayout(present, settings);
    const pinned = isShared ? sharedMaps.filter((name) => listPins(pinFolder).includes(name)) : [];
    const pins = Object.fromEntries(pinned.map((name) => [name, join(pinFolder, name)]));
    native.load(object, settings, pins, {});
  });
}

/**
 * Loads the programs and returns the changes. Pinned maps of another layout are removed: these programs
 * cannot read their records.
 */
function load(native: NativeModule, wanted: WantedPrograms): string[] {
  const changes: string[] = [];
  const present = readValue(native, wanted.pinFolder, 'settings');
  const pin = (name: string): string => join(wanted.pinFolder, name);
  const isOther = present !== undefined && !isSameLayout(present, wanted.settings);
  if (isOther) {
    // Agents that read them go on with them until they install programs of their own.
    excuseUnrecorded(native, pin('counters'), neverNs);
    for (const name of sharedMaps) unpin(wanted.pinFolder, name);
    changes.push('maps of another layout left behind');
  }
  const names = hooks.map(({ name }) => name);
  native.load(
    wanted.object,
    wanted.settings,
    {
      [settingsMap]: pin('next_settings'),
      ...Object.fromEntries(sharedMaps.map((name) => [name, pin(name)])),
    },
    Object.fromEntries(names.map((name) => [`nmi_${name}`, pin(`next_program_${name}`)])),
  );
  // Connections that are open or under way have no record in the new maps.
  if (isOther) excuseUnrecorded(native, pin('counters'), process.hrtime.bigint());
  return changes;
}

/**
 * Differences from the wanted state, as short sentences.
 * @returns `absent` if nothing is pinned.
 * @throws RedirectError
 */
export function diffPrograms(wanted: WantedPrograms): 'absent' | readonly string[] {
  const { pinFolder } = wanted;
  const names = listPins(pinFolder);
  if (names.length === 0) return 'absent';
  return inKernel((native) => {
    const present = readValue(native, pinFolder, 'settings');
    const difference =
      present === undefined ? 'settings missing' : diffSettings(present, wanted.settings);
    return [
      ...(difference === undefined ? [] : [difference]),
      // Until its end an installation has two sets of programs, which may use different maps.
      ...(names.includes('next_settings') ? ['an installation has not ended'] : []),
      ...sharedMaps.flatMap((name) => (names.includes(name) ? [] : [`map ${name} missing`])),
      ...hooks.flatMap((hook) => diffHook(native, wanted, hook)),
      ...wantedSets(wanted).flatMap(([set, ids]) => {
        const found = unlessMissing(() => readCgroups(native, pinFolder, set));
        return found === undefined ? [] : diffCgroups(set, found, ids);
      }),
    ];
  });
}

function diffHook(native: NativeModule, wanted: WantedPrograms, hook: Hook): readonly string[] {
  const { pinFolder, agent } = wanted;
  const cgroup = cgroupOf(hook, wanted);
  const link = unlessMissing(() => native.linkInfo(join(pinFolder, linkName(hook, agent.id))));
  if (link === undefined) return [`program ${hook.name} not attached`];
  if (link.attachType !== hook.attachType) {
    return [`link ${hook.name} is of another kind`];
  }
  if (link.cgroupId === 0n) return [`program ${hook.name} detached, its cgroup is gone`];
  if (link.cgroupId !== cgroup.id) {
    return [`program ${hook.name} attached to cgroup ${link.cgroupId}`];
  }
  const pin = join(pinFolder, `program_${hook.name}`);
  const program = unlessMissing(() => native.linkInfo(pin));
  return program?.programId === link.programId
    ? []
    : [`program ${hook.name} is not the one we know`];
}

function isLinkedTo(
  native: NativeModule,
  pin: string,
  attachType: number,
  cgroupId: bigint,
): boolean {
  const link = unlessMissing(() => native.linkInfo(pin));
  return link?.attachType === attachType && link.cgroupId === cgroupId;
}

/**
 * Closes sockets of this network namespace that reach the real endpoint and must not: pods on the host
 * network may have connections that are older than the programs, which netfilter cannot distinguish
 * from the node's own. Returns their number.
 * @throws RedirectError
 */
export function cutOlderSockets(
  wanted: WantedPrograms,
  { metadataIp, metadataPort }: RedirectTarget,
): number {
  return inKernel((native) => {
    const sets: readonly CgroupSet[] = ['exempt', 'node_pods'];
    const others = sets.flatMap((set) => readCgroups(native, wanted.pinFolder, set));
    const redirected = listCgroupIds(wanted.cgroup.path, others);
    return native.cutSockets({ ip: metadataIp, port: metadataPort }, redirected);
  });
}

/** The port that the installed programs, of any version, redirect to. @throws RedirectError */
export function readListenPort(pinFolder: string): number | undefined {
  return inKernel((native) => {
    const present = readValue(native, pinFolder, 'settings');
    return present === undefined ? undefined : listenPortOf(present);
  });
}

/** The links among these pins: of redirecting programs first, of those that answer the agents last. */
function linksOf(names: readonly string[]): readonly string[] {
  return hooks
    .toReversed()
    .flatMap(({ name }) => names.filter((each) => new RegExp(`^link_${name}(?:_|$)`).test(each)));
}

/**
 * Unlinks all pins, those of the redirecting programs first. It needs write permission only, and no bpf(2); the
 * kernel detaches programs without other references within milliseconds.
 * @throws RedirectError
 */
export function unpinPrograms(pinFolder: string): void {
  const names = listOwnPins(pinFolder);
  for (const name of new Set([...linksOf(names), ...names])) unpin(pinFolder, name);
  removePinFolder(pinFolder);
}

/** Names of the agent's pins. @throws RedirectError if the folder must not be read. */
export function listOwnPins(pinFolder: string): readonly string[] {
  const names = listPins(pinFolder).filter((name) => ownPin.test(name));
  // Files with these names in another file system are not pins.
  return names.length > 0 && isBpffs(pinFolder) ? names : [];
}

/** The only value of an array map of the installed programs, if there are any. */
function readValue(native: NativeModule, pinFolder: string, name: string): Uint8Array | undefined {
  const first = new Uint8Array(4);
  const pin = join(pinFolder, name);
  return unlessMissing(() => withMap(native, pin, 'read', (map) => native.mapGet(map, first)));
}

/** Counts of the programs since their maps were created. */
export type ProgramCounters = ReturnType<typeof decodeCounters>;

/** Undefined while no programs are installed. @throws RedirectError */
export function readCounters(pinFolder: string): ProgramCounters | undefined {
  return inKernel((native) => {
    const bytes = readValue(native, pinFolder, 'counters');
    return bytes === undefined ? undefined : decodeCounters(bytes);
  });
}

function decodeCounters(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  // Programs of an earlier version count less.
  const at = (index: number) =>
    8 * index < bytes.length ? view.getBigUint64(8 * index, true) : 0n;
  return {
    redirected: at(0),
    redirectedMapped: at(1),
    exempt: at(2),
    recorded: at(3),
    deleted: at(4),
    refused: at(5),
    unrecorded: at(6),
    unrecordedAtNs: at(7),
    direct: at(8),
    tooFast: at(9),
  };
}

function unlessMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}
