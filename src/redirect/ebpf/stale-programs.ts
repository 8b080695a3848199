/**
 * Pinned programs of an earlier agent in eBPF mode, found by an agent in another mode. They still rewrite
 * connects, also those of this agent, since they do not exempt its cgroup: its calls to the real endpoint
 * would return to it. Pins are unlinked, which needs no bpf(2) and so no capability.
 */
import { sleep, type Clock } from '../../base/time/clock.ts';
import { RedirectError, type Redirect, type RedirectStatus } from '../redirect.ts';
import { unpin } from './pins.ts';
import { bindLinks, listOwnPins, unpinPrograms } from './programs.ts';

/** The kernel detaches in a work queue, within a few milliseconds on an idle machine. */
const detachMs = 100;

/**
 * A mode that removes them once its own redirect is active, so that the node is never open. Without a redirect they
 * stay and are reported, since only `remove` opens a node.
 */
export function replacePrograms(redirect: Redirect, pinFolder: string, clock: Clock): Redirect {
  const replaces = redirect.mode !== 'none';
  const pins = (): readonly string[] => orElse([], () => listOwnPins(pinFolder));
  const hint = replaces ? '' : ': nmi redirect remove takes them away';
  const withProblem = (status: RedirectStatus, more = hint): RedirectStatus => {
    if (pins().length === 0) return status;
    const state = status.state === 'absent' ? 'absent' : 'broken';
    const problem = `programs of the eBPF mode are pinned in ${pinFolder}${more}`;
    return { ...status, state, problems: [...status.problems, problem] };
  };
  return {
    ...redirect,
    prepare: async () => {
      // These reserve the address and port that this agent listens on; without them the node stays closed.
      const links = replaces ? bindLinks.filter((name) => pins().includes(name)) : [];
      const released = links.filter((name) => orElse(false, () => unpin(pinFolder, name)));
      if (released.length > 0) await sleep(clock, detachMs);
      await redirect.prepare();
    },
    install: async (port) => {
      const status = await redirect.install(port);
      if (!replaces || status.state !== 'active' || pins().length === 0) return withProblem(status);
      try {
        unpinPrograms(pinFolder);
      } catch (error) {
        if (!(error instanceof RedirectError)) throw error;
        return withProblem(status, `: ${error.message}`);
      }
      const changed = [...(status.changed ?? []), 'programs of the eBPF mode taken away'];
      return { ...status, changed };
    },
    verify: async () => withProblem(await redirect.verify()),
    isFrontWhole: async (port) => pins().length === 0 && redirect.isFrontWhole(port),
    remove: async () => {
      // Before the rest: as long as the programs are attached, their target must exist.
      if (pins().length > 0) unpinPrograms(pinFolder);
      await redirect.remove();
    },
  };
}

/** An agent that may not read the folder has no pins: it has no privileges or no redirect. */
function orElse<T>(otherwise: T, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof RedirectError)) throw error;
    return otherwise;
  }
}
