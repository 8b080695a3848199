/**
 * Programs that an earlier agent pinned for the eBPF mode, met by a mode that has none. They go on
 * rewriting connects, those of this agent among them: its cgroup is not the one they exempt, so its
 * own calls to the real endpoint would come back to it.
 *
 * 1. Iptables takes them away once its own redirect is active: the node is not open for a moment.
 * 2. Without a redirect they stay, since only `remove` opens a node, and are told as a problem.
 * 3. The address mode does not start: behind the programs stand rules, which lead past it as well.
 * 4. What keeps the agent's address and port for the earlier agent goes before this one listens there:
 *    it opens nothing, and this agent has no right to exempt itself.
 * 5. Their pins are unlinked, which takes no bpf(2) and so no capability; the kernel detaches what
 *    nothing holds any more.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { unpin } from './pins.ts';
import { listOwnPins, PLACE_LINKS, unpinPrograms } from './programs.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../redirect.ts';

/** The mode, which takes such programs away when it stands itself, or is removed. */
export function replacePrograms(redirect: Redirect, pinFolder: string): Redirect {
  const look = (status: RedirectStatus): RedirectStatus => withSight(status, lookFor(pinFolder));
  return {
    ...redirect,
    prepare: async (signal) => {
      await releasePlace(pinFolder);
      await redirect.prepare(signal);
    },
    install: async () => {
      const status = await redirect.install();
      const sight = lookFor(pinFolder);
      if (sight.kind !== 'pinned' || status.state !== 'active') return withSight(status, sight);
      const obstacle = takeAway(pinFolder);
      if (obstacle !== undefined) return withProblem(status, `${sight.problem}: ${obstacle}`);
      const changed = [...(status.changed ?? []), 'programs of the eBPF mode taken away'];
      return { ...status, changed };
    },
    verify: async () => look(await redirect.verify()),
    remove: async () => {
      // First: while they stand, what they lead to must stand too.
      if (lookFor(pinFolder).kind === 'pinned') unpinPrograms(pinFolder);
      await redirect.remove();
    },
  };
}

/** The mode, which only says that such programs are there. */
export function addPrograms(redirect: Redirect, pinFolder: string): Redirect {
  const look = (status: RedirectStatus): RedirectStatus => {
    const sight = lookFor(pinFolder);
    if (sight.kind !== 'pinned') return withSight(status, sight);
    return withProblem(status, `${sight.problem}: nmi redirect remove takes them away`);
  };
  return {
    ...redirect,
    install: async () => look(await redirect.install()),
    verify: async () => look(await redirect.verify()),
  };
}

/**
 * The mode, which does not start beside such programs: they lead to an address of their own, where
 * this one does not listen, and whoever asks whether anything answers at the metadata address asks there.
 */
export function refuseBesidePrograms(redirect: Redirect, pinFolder: string): Redirect {
  const refuse = (): void => {
    const sight = lookFor(pinFolder);
    if (sight.kind !== 'pinned') return;
    const message = `${sight.problem}: nmi redirect remove takes them away`;
    throw new RedirectError('CONFLICT', 'take address', message);
  };
  return {
    ...addPrograms(redirect, pinFolder),
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

type Sight =
  | { readonly kind: 'none' }
  | { readonly kind: 'pinned'; readonly problem: string }
  /** Who may not look there has made none: one without rights and redirect runs like this. */
  | { readonly kind: 'unseen'; readonly why: string };

/** @throws what is no failure at the kernel's boundary. */
function lookFor(pinFolder: string): Sight {
  try {
    if (listOwnPins(pinFolder).length === 0) return { kind: 'none' };
    return { kind: 'pinned', problem: `programs of the eBPF mode are pinned in ${pinFolder}` };
  } catch (error) {
    return { kind: 'unseen', why: messageOf(error) };
  }
}

/** The kernel detaches by a work queue, within a few milliseconds on an idle machine. */
const detachMs = 100;

/** What cannot be unlinked is met, and reported, by an installation. */
async function releasePlace(pinFolder: string): Promise<void> {
  if (lookFor(pinFolder).kind !== 'pinned') return;
  try {
    const released = PLACE_LINKS.filter((name) => unpin(pinFolder, name));
    if (released.length > 0) await delay(detachMs);
  } catch (error) {
    messageOf(error);
  }
}

function withSight(status: RedirectStatus, sight: Sight): RedirectStatus {
  switch (sight.kind) {
    case 'none':
      return status;
    case 'pinned':
      return withProblem(status, sight.problem);
    case 'unseen': {
      const detail = `${status.detail}; not looked for programs of the eBPF mode: ${sight.why}`;
      return { ...status, detail };
    }
  }
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

function withProblem(status: RedirectStatus, problem: string): RedirectStatus {
  const state = status.state === 'absent' ? 'absent' : 'broken';
  return { ...status, state, problems: [...status.problems, problem] };
}

/** @throws what is no failure at the kernel's boundary. */
function messageOf(error: unknown): string {
  if (!(error instanceof RedirectError)) throw error;
  return error.message;
}
