/**
 * Pinned programs of an earlier agent in eBPF mode, found by an agent in another mode. The programs
 * still rewrite connects, also those of this agent, since they do not exempt its cgroup: its calls
 * to the real endpoint would return to it.
 *
 * 1. The iptables mode removes them once its own redirect is active, so that the node is never open.
 * 2. Without a redirect they stay and are reported as a problem, since only `remove` opens a node.
 * 3. The address mode does not start: the programs, and the rules of their fallback, redirect past it.
 * 4. The bind programs, which reserve the agent's address and port for the earlier agent, are removed
 *    before this agent listens there: this opens nothing, and this agent has no permission to
 *    exempt itself.
 * 5. Pins are unlinked, which needs no bpf(2) and so no capability; the kernel then detaches the
 *    programs.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { unpin } from './pins.ts';
import { listOwnPins, bindLinks, unpinPrograms } from './programs.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../redirect.ts';

/** A mode that removes such programs after its own installation, and in `remove`. */
export function replacePrograms(redirect: Redirect, pinFolder: string): Redirect {
  const look = (status: RedirectStatus): RedirectStatus => withFound(status, lookFor(pinFolder));
  return {
    ...redirect,
    prepare: async (signal) => {
      await releasePlace(pinFolder);
      await redirect.prepare(signal);
    },
    install: async () => {
      const status = await redirect.install();
      const found = lookFor(pinFolder);
      if (found.kind !== 'pinned' || status.state !== 'active') return withFound(status, found);
      const obstacle = takeAway(pinFolder);
      if (obstacle !== undefined) return withProblem(status, `${found.problem}: ${obstacle}`);
      const changed = [...(status.changed ?? []), 'programs of the eBPF mode taken away'];
      return { ...status, changed };
    },
    verify: async () => look(await redirect.verify()),
    remove: async () => {
      // Before the rest: as long as the programs are attached, their target must exist.
      if (lookFor(pinFolder).kind === 'pinned') unpinPrograms(pinFolder);
      await redirect.remove();
    },
  };
}

/** A mode that only reports such programs. */
export function reportPrograms(redirect: Redirect, pinFolder: string): Redirect {
  const look = (status: RedirectStatus): RedirectStatus => {
    const found = lookFor(pinFolder);
    if (found.kind !== 'pinned') return withFound(status, found);
    return withProblem(status, `${found.problem}: nmi redirect remove takes them away`);
  };
  return {
    ...redirect,
    install: async () => look(await redirect.install()),
    verify: async () => look(await redirect.verify()),
  };
}

/**
 * A mode that refuses to start beside such programs: they redirect to an address at which this mode does
 * not listen. They would also redirect the check whether a service answers at the metadata address.
 */
export function refuseBesidePrograms(redirect: Redirect, pinFolder: string): Redirect {
  const refuse = (): void => {
    const found = lookFor(pinFolder);
    if (found.kind !== 'pinned') return;
    const message = `${found.problem}: nmi redirect remove takes them away`;
    throw new RedirectError('CONFLICT', 'take address', message);
  };
  return {
    ...reportPrograms(redirect, pinFolder),
    prepare: async () => {
      refuse();
      await redirect.prepare();
    },
    install: async () => {
      refuse();
      return redirect.install();
    },
  };
}

type FoundPrograms =
  | { readonly kind: 'none' }
  | { readonly kind: 'pinned'; readonly problem: string }
  /** An agent that may not read the folder has no pins: it has no privileges or no redirect. */
  | { readonly kind: 'unseen'; readonly why: string };

/** @throws any error other than RedirectError. */
function lookFor(pinFolder: string): FoundPrograms {
  try {
    if (listOwnPins(pinFolder).length === 0) return { kind: 'none' };
    return { kind: 'pinned', problem: `programs of the eBPF mode are pinned in ${pinFolder}` };
  } catch (error) {
    return { kind: 'unseen', why: messageOf(error) };
  }
}

/** The kernel detaches in a work queue, within a few milliseconds on an idle machine. */
const detachMs = 100;

/** The next installation finds and reports a pin that cannot be unlinked. */
async function releasePlace(pinFolder: string): Promise<void> {
  if (lookFor(pinFolder).kind !== 'pinned') return;
  try {
    const released = bindLinks.filter((name) => unpin(pinFolder, name));
    if (released.length > 0) await delay(detachMs);
  } catch (error) {
    messageOf(error);
  }
}

function withFound(status: RedirectStatus, found: FoundPrograms): RedirectStatus {
  switch (found.kind) {
    case 'none':
      return status;
    case 'pinned':
      return withProblem(status, found.problem);
    case 'unseen': {
      const detail = `${status.detail}; not looked for programs of the eBPF mode: ${found.why}`;
      return { ...status, detail };
    }
  }
}

/** Returns why the programs could not be removed. */
function takeAway(pinFolder: string): string | undefined {
  try {
    unpinPrograms(pinFolder);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function withProblem(status: RedirectStatus, problem: string): RedirectStatus {
  const state = status.state === 'absent' ? 'absent' : 'broken';
  return { ...status, state, problems: [...status.problems, problem] };
}

/** @throws any error other than RedirectError. */
function messageOf(error: unknown): string {
  if (!(error instanceof RedirectError)) throw error;
  return error.message;
}
