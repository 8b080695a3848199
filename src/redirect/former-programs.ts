/**
 * Programs that an earlier agent pinned for the eBPF mode, met by a mode that has none. They go on
 * rewriting connects, those of this agent among them: its cgroup is not the one they exempt, so its
 * own calls to the real endpoint would come back to it.
 *
 * 1. A mode with a redirect of its own takes them away, once that one is active: the node is not open
 *    for a moment.
 * 2. Without one they stay, since only `remove` opens a node, and are told as a problem.
 * 3. Their pins are unlinked, which takes no bpf(2) and so no capability; the kernel detaches what
 *    nothing holds any more.
 */
import { listOwnPins, unpinPrograms } from './ebpf-programs.ts';
import { RedirectError, type Redirect, type RedirectStatus } from './redirect.ts';

/** The mode, which takes such programs away when it stands itself, or is removed. */
export function replacePrograms(redirect: Redirect, pinFolder: string): Redirect {
  return {
    ...redirect,
    install: async () => {
      const status = await redirect.install();
      const found = findPrograms(pinFolder);
      if (found === undefined || status.state !== 'active') return withProblem(status, found);
      const obstacle = takeAway(pinFolder);
      if (obstacle !== undefined) return withProblem(status, `${found}: ${obstacle}`);
      const changed = [...(status.changed ?? []), 'programs of the eBPF mode taken away'];
      return { ...status, changed };
    },
    verify: async () => withProblem(await redirect.verify(), findPrograms(pinFolder)),
    remove: async () => {
      // First: while they stand, what they lead to must stand too.
      unpinPrograms(pinFolder);
      await redirect.remove();
    },
  };
}

/** The mode, which only says that such programs are there. */
export function tellOfPrograms(redirect: Redirect, pinFolder: string): Redirect {
  const look = (status: RedirectStatus): RedirectStatus => {
    try {
      const found = findOrThrow(pinFolder);
      if (found === undefined) return status;
      return withProblem(status, `${found}: nmi redirect remove takes them away`);
    } catch (error) {
      // Who may not look there has made none; one without rights and redirect runs like this.
      const detail = `${status.detail}; not looked for programs of the eBPF mode`;
      return { ...status, detail: `${detail}: ${messageOf(error)}` };
    }
  };
  return {
    ...redirect,
    install: async () => look(await redirect.install()),
    verify: async () => look(await redirect.verify()),
  };
}

function findPrograms(pinFolder: string): string | undefined {
  try {
    return findOrThrow(pinFolder);
  } catch (error) {
    return `whether programs of the eBPF mode are there cannot be told: ${messageOf(error)}`;
  }
}

function findOrThrow(pinFolder: string): string | undefined {
  return listOwnPins(pinFolder).length === 0
    ? undefined
    : `programs of the eBPF mode are pinned in ${pinFolder}`;
}

/** Returns what keeps them. */
function takeAway(pinFolder: string): string | undefined {
  try {
    unpinPrograms(pinFolder);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function withProblem(status: RedirectStatus, problem: string | undefined): RedirectStatus {
  if (problem === undefined) return status;
  const state = status.state === 'absent' ? 'absent' : 'broken';
  return { ...status, state, problems: [...status.problems, problem] };
}

/** @throws what is no failure at the kernel's boundary. */
function messageOf(error: unknown): string {
  if (!(error instanceof RedirectError)) throw error;
  return error.message;
}
