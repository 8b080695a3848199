/**
 * Whether this node supports each part of the eBPF mode: supported, unsupported with the requirement, or
 * unknown. Changes nothing: programs are loaded for the probe and closed at once.
 */
import { constants, release } from 'node:os';
import { dirname } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { findPodsRoot, ownCgroupId, resolveCgroupRoot } from '../cgroup/cgroup-tree.ts';
import { defaultPinFolder, findPinObstacle, isBpffs } from './pins.ts';
import { nativeModule, type KernelAnswers } from '../native/addon.ts';
import { readPrograms } from '../native/native-files.ts';
import { RedirectError } from '../redirect.ts';
import { tryPrograms } from './programs.ts';
import { settingsOf } from './settings.ts';
import { defaultTarget } from '../target.ts';

export interface Finding {
  /** Name of the part, for people. */
  readonly part: string;
  readonly support: 'supported' | 'unsupported' | 'unknown';
  /** Its location, or the requirement that is missing. */
  readonly detail: string;
}

export interface EbpfProbeOptions {
  /** As for the redirect itself. */
  readonly cgroupRoot?: string;
  readonly pinFolder?: string;
}

/** The first kernel with each part; the mode as a whole is built for 5.10 and later. */
const kernelParts = {
  connect: { part: 'programs at connect', since: '4.17' },
  peername: { part: 'programs at getpeername', since: '5.8' },
  sockOps: { part: 'programs at the states of TCP', since: '4.13' },
  socketStorage: { part: 'storage with sockets, at connect', since: '5.10' },
  cgroupId: { part: 'cgroup ids, at connect', since: '5.7' },
  cgroupLink: { part: 'links to cgroups', since: '5.7' },
} satisfies Record<keyof KernelAnswers, { readonly part: string; readonly since: string }>;

/** Result of a probe that the kernel does not permit. */
export const notPermitted = -constants.errno.EPERM;

/** All parts, in order of dependency. Never throws for a part that a node may lack. */
export function probeEbpf(options: EbpfProbeOptions = {}): readonly Finding[] {
  const pinFolder = options.pinFolder ?? defaultPinFolder;
  const ofKernel = probeKernel();
  return [
    ...ofKernel,
    // A kernel without the parts refuses the programs too, with a less useful error.
    ...(summariseFindings(ofKernel) === 'supported' ? [probePrograms(pinFolder)] : []),
    ...probeCgroups(options.cgroupRoot),
    probePins(pinFolder),
  ];
}

/** `supported` when every part is; `unsupported` when one is not. */
export function summariseFindings(findings: readonly Finding[]): Finding['support'] {
  if (findings.some(({ support }) => support === 'unsupported')) return 'unsupported';
  return findings.some(({ support }) => support === 'unknown') ? 'unknown' : 'supported';
}

/** Attempts before an inconclusive answer is accepted. */
const maxTries = 3;

/**
 * Features of the kernel. A transient lack of memory must not count as a kernel without eBPF: the agent
 * would use another mode until its next start.
 * @throws RedirectError without the native module.
 */
export function kernelAnswers(probe = () => nativeModule().probe()): KernelAnswers {
  let answers = probe();
  const isConclusive = (answer: number): boolean => answer >= 0 || answer === notPermitted;
  for (let tries = 1; tries < maxTries && !Object.values(answers).every(isConclusive); tries += 1) {
    answers = probe();
  }
  return answers;
}

/**
 * Why the kernel refuses the programs; undefined if it accepts them. This is the last probe: a kernel
 * can have each part and refuse the program types (5.10) or the programs (its verifier). A transient
 * lack of memory does not count.
 */
export function findRefusal(pinFolder: string): RedirectError | undefined {
  let refusal: RedirectError | undefined;
  for (let tries = 0; tries < maxTries; tries += 1) {
    try {
      const object = readPrograms();
      tryPrograms(pinFolder, object, settingsOf(object, defaultTarget));
      return undefined;
    } catch (error) {
      if (!(error instanceof RedirectError)) throw error;
      refusal = error;
      if (error.code === 'UNSUPPORTED' || error.code === 'NOT_PERMITTED') break;
    }
  }
  return refusal;
}

function probePrograms(pinFolder: string): Finding {
  const part = 'programs of this version';
  const refusal = findRefusal(pinFolder);
  if (refusal === undefined) return { part, support: 'supported', detail: 'the kernel loads them' };
  const support = refusal.code === 'NOT_PERMITTED' ? 'unknown' : 'unsupported';
  return { part, support, detail: refusal.message };
}

function probeKernel(): readonly Finding[] {
  const probed = attempt('native module', () => kernelAnswers());
  if (probed.kind === 'finding') return [probed.finding];
  const answers = probed.value;
  return [
    { part: 'native module', support: 'supported', detail: 'loaded' },
    findingOfAnswer(kernelParts.connect, answers.connect),
    findingOfAnswer(kernelParts.peername, answers.peername),
    findingOfAnswer(kernelParts.sockOps, answers.sockOps),
    findingOfAnswer(kernelParts.socketStorage, answers.socketStorage),
    findingOfAnswer(kernelParts.cgroupId, answers.cgroupId),
    findingOfAnswer(kernelParts.cgroupLink, answers.cgroupLink),
  ];
}

/** @param answer 0: supported; an errno: unsupported; a negative errno: unknown. */
export function findingOfAnswer(
  { part, since }: { readonly part: string; readonly since: string },
  answer: number,
): Finding {
  if (answer === 0) return { part, support: 'supported', detail: `Linux ${release()}` };
  if (answer > 0) {
    const detail = `Linux ${since} or later is needed, this is ${release()} (${getSystemErrorName(-answer)})`;
    return { part, support: 'unsupported', detail };
  }
  const isRefused = answer === notPermitted;
  const why = isRefused ? 'needs CAP_BPF and CAP_NET_ADMIN' : getSystemErrorName(answer);
  return { part, support: 'unknown', detail: `unknown: ${why}` };
}

function probeCgroups(given: string | undefined): readonly Finding[] {
  const root = attempt('cgroup2 tree', () => resolveCgroupRoot(given));
  if (root.kind === 'finding') return [root.finding];
  const podsRoot = findPodsRoot(root.value);
  const own = attempt('own cgroup', () => ownCgroupId());
  return [
    { part: 'cgroup2 tree', support: 'supported', detail: root.value },
    podsRoot === undefined
      ? {
          part: 'pods in the cgroup2 tree',
          support: 'unsupported',
          detail: `none below ${root.value}: the kubelet has not started, or uses cgroup version 1`,
        }
      : { part: 'pods in the cgroup2 tree', support: 'supported', detail: podsRoot },
    own.kind === 'finding' ? own.finding : findingOfOwnCgroup(own.value),
  ];
}

function findingOfOwnCgroup(id: bigint | undefined): Finding {
  return id === undefined
    ? { part: 'own cgroup', support: 'unsupported', detail: 'in no mounted part of the tree' }
    : { part: 'own cgroup', support: 'supported', detail: `id ${id}` };
}

/** The same check as `--redirect=auto`. */
function probePins(pinFolder: string): Finding {
  const part = 'BPF file system';
  const above = dirname(pinFolder);
  const obstacle = findPinObstacle(pinFolder);
  if (obstacle !== undefined) {
    const { why: detail, isWantOfRights } = obstacle;
    return { part, support: isWantOfRights ? 'unknown' : 'unsupported', detail };
  }
  const detail = isBpffs(above) ? above : `not yet at ${above}; one can be mounted there`;
  return { part, support: 'supported', detail };
}

type Attempt<T> =
  | { readonly kind: 'value'; readonly value: T }
  | { readonly kind: 'finding'; readonly finding: Finding };

function attempt<T>(part: string, work: () => T): Attempt<T> {
  try {
    return { kind: 'value', value: work() };
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    return { kind: 'finding', finding: { part, support: 'unsupported', detail: error.message } };
  }
}
