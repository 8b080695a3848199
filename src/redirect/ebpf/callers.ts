/**
 * Asks a socket that the agent has accepted who called. The programs answer for sockets whose listening socket
 * was made in the cgroup of the agent, and the level that is asked for contains the layout of their records.
 */
import { nativeModule } from '../native/addon.ts';
import type { Attestation } from '../redirect.ts';

const unanswered = 'no program of this version answers for the sockets of this process';
const unavailable: Attestation = { kind: 'unavailable', why: unanswered };

/** By `enum nmi_kind` of nmi.h; the others are attested. */
const nobody: readonly Attestation[] = [
  { kind: 'unattested' },
  {
    kind: 'unattested',
    retryWhy:
      'this node had no room for a record of it, its pod has too many connections, another pod used its address and port, or an update of the agent is under way',
  },
  { kind: 'unavailable', why: 'another socket of this node has the same address and port' },
];
const directKind = 4;

/** Never throws. @param socket descriptor of an accepted connection. */
export function attestSocket(socket: number): Attestation {
  try {
    const answer = nativeModule().callerOf(socket);
    if (answer === undefined) return unavailable;
    const { kind, cgroupId } = answer;
    return nobody[kind] ?? { kind: 'attested', cgroupId, isDirect: kind === directKind };
  } catch {
    return unavailable;
  }
}

/** Why callers cannot be asked for, or undefined. */
export function whyUnanswered(): string | undefined {
  try {
    return nativeModule().isAnswered() ? undefined : unanswered;
  } catch {
    return unanswered;
  }
}
