/**
 * Pinned programs of an earlier agent in eBPF mode, found by an agent in another mode. The programs
 * still rewrite connects, also those of this agent, since they do not exempt its cgroup: its calls
 * to the real endpoint would return to it.
 *
 * 1. The iptables mode removes them once its own redirect is active, so that the node is never open.
 * 2. Without a redirect they stay and are reported as a problem, since only `remove` opens a node.
 * 3. The bind programs, which reserve the agent's address and port for the earlier agent, are removed
 *    before this agent listens there: this opens nothing, and this agent has no permission to
 *    exempt itself.
 * 4. Pins are unlinked, which needs no bpf(2) and so no capability; the kernel then detaches the
 *    programs.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { unpin } from './pins.ts';
import { listOwnPins, bindLinks, unpinPrograms } from './programs.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../redirect.ts';

/** A mode that removes such programs after its own installation, and in `remove`. */
export function replacePrograms(redirect: Redirect, pinFolder: string): Redirect {
  return {
    ...redirect,
    prepare: async (signal) => {
      await releasePlace(pinFolder);
      await redirect.prepare(signal);
    },
    install: async (port) => {
      const status = await redirect.install(port);
      const found = findPinned(pinFolder);
      if (found === undefined || status.state !== 'active') return withProblem(status, found);
      try {
        unpinPrograms(pinFolder);
      } catch (error) {
        return withProblem(status, `${found}: ${messageOf(error)}`);
      }
      const changed = [...(status.changed ?? []), 'programs of the eBPF mode taken away'];
      return { ...status, changed };
    },
    verify: async () => withProblem(await redirect.verify(), findPinned(pinFolder)),
    isFrontWhole: async (port) =>
      findPinned(pinFolder) === undefined && redirect.isFrontWhole(port),
    remove: async () => {
      // Before the rest: as long as the programs are attached, their target must exist.
      if (findPinned(pinFolder) !== undefined) unpinPrograms(pinFolder);
      await redirect.remove();
    },
  };
}

/** A mode that only reports such programs. */
export function reportPrograms(redirect: Redirect, pinFolder: string): Redirect {
  return {
    ...redirect,
    install: async () => withProblem(await redirect.install(), findRemovable(pinFolder)),
    verify: async () => withProblem(await redirect.verify(), findRemovable(pinFolder)),
    isFrontWhole: async (port) =>
      findPinned(pinFolder) === undefined && redirect.isFrontWhole(port),
  };
}

/**
 * The problem, if such programs are pinned. An agent that may not read the folder has no pins: it has no
 * privileges or no redirect.
 * @throws any error other than RedirectError.
 */
function findPinned(pinFolder: string): string | undefined {
  try {
    if (listOwnPins(pinFolder).length === 0) return undefined;
    return `programs of the eBPF mode are pinned in ${pinFolder}`;
  } catch (error) {
    return void messageOf(error);
  }
}

function findRemovable(pinFolder: string): string | undefined {
  const found = findPinned(pinFolder);
  return found === undefined ? undefined : `${found}: nmi redirect remove takes them away`;
}

/** The kernel detaches in a work queue, within a few milliseconds on an idle machine. */
const detachMs = 100;

/** The next installation finds and reports a pin that cannot be unlinked. */
async function releasePlace(pinFolder: string): Promise<void> {
  if (findPinned(pinFolder) === undefined) return;
  try {
    const released = bindLinks.filter((name) => unpin(pinFolder, name));
    if (released.length > 0) await delay(detachMs);
  } catch (error) {
    messageOf(error);
  }
}

function withProblem(status: RedirectStatus, problem: string | undefined): RedirectStatus {
  if (problem === undefined) return status;
  const state = status.state === 'absent' ? 'absent' : 'broken';
  return { ...status, state, problems: [...status.problems, problem] };
}

/** @throws any error other than RedirectError. */
function messageOf(error: unknown): string {
  if (!(error instanceof RedirectError)) throw error;
  return error.message;
}
