/**
 * The names of a fabric's namespaces: `nmi-lab-<pid>[.<label>]-<space>`. The pid belongs to the
 * owner, so a later run can tell a leftover from a lab that is still up. A label has no dash, so
 * one fabric's prefix is never a prefix of another's.
 */
import { LabError } from './lab-error.ts';

const fabricPattern = /^nmi-lab-([1-9][0-9]*)(?:\.([a-z0-9]+))?$/;
const namespacePattern = /^(nmi-lab-([1-9][0-9]*)(?:\.[a-z0-9]+)?)-([a-z0-9][a-z0-9.-]*)$/;
const spacePattern = /^[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?$/;
const labelPattern = /^[a-z0-9]{1,32}$/;

export interface NamespaceName {
  /** `nmi-lab-<pid>[.<label>]`, which names the fabric. */
  readonly prefix: string;
  readonly ownerPid: number;
  /** `azure`, `node` or a pod's name. */
  readonly space: string;
}

/** @throws LabError `NAME_REFUSED` for a label that is not 1 to 32 of `a-z0-9`. */
export function renderFabricPrefix(ownerPid: number, label?: string): string {
  if (label === undefined) return `nmi-lab-${String(ownerPid)}`;
  if (!labelPattern.test(label)) throw new LabError('NAME_REFUSED', `fabric label "${label}"`);
  return `nmi-lab-${String(ownerPid)}.${label}`;
}

/** @throws LabError `NAME_REFUSED` unless `space` has the form of a Kubernetes object name. */
export function renderNamespaceName(prefix: string, space: string): string {
  if (!spacePattern.test(space)) throw new LabError('NAME_REFUSED', `namespace name "${space}"`);
  return `${prefix}-${space}`;
}

export function isFabricPrefix(text: string): boolean {
  return fabricPattern.test(text);
}

/** Undefined for a namespace that no lab made. */
export function parseNamespaceName(text: string): NamespaceName | undefined {
  const match = namespacePattern.exec(text);
  if (match === null) return undefined;
  const [, prefix, pid, space] = match;
  if (prefix === undefined || pid === undefined || space === undefined) return undefined;
  return { prefix, ownerPid: Number(pid), space };
}
