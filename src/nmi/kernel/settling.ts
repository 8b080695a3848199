/**
 * Connections that are older than the redirect. At a boot, an upgrade or the switch from another agent, a
 * connection can reach the agent without a record of its caller: its SYN waited, or netfilter remembers its
 * port from before. SDKs treat a 403 as final, so such a connection gets a 503; the next one has a record.
 */
import type { Attestation } from '../../redirect/redirect.ts';

export const settlingMs = {
  /** After an installation: as long as SDKs and the kernel repeat what began before it. */
  installed: 60_000,
  /** After a repair, and after the start of a process: another one may have just changed the redirect. */
  repaired: 5_000,
} as const;

const settling: Attestation = {
  kind: 'unattested',
  retryWhy: 'the redirect was changed less than a minute ago, and this connection may be older',
};

export function whileSettling(attestation: Attestation, isSettling: boolean): Attestation {
  return attestation.kind === 'unattested' && isSettling ? settling : attestation;
}
