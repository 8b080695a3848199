/**
 * Connections that are older than the programs. At a boot or an upgrade, between the installation of
 * iptables rules and eBPF programs, a connection can reach the agent without a record of its caller.
 * SDKs treat a 403 as final, so such a connection gets a 503 for a few seconds; the next one has a record.
 */
import type { Attestation } from '../../redirect/redirect.ts';

/** An unanswered SYN is resent after 1 s and after 3 s; older connects have given up. */
const settlingMs = 5_000;

const settling: Attestation = {
  kind: 'unattested',
  retryWhy: 'the redirect was installed seconds ago, and this connection may be older',
};

/** @param activeForMs time since the redirect became active; 0 before. */
export function whileSettling(attestation: Attestation, activeForMs: number): Attestation {
  return attestation.kind === 'unattested' && activeForMs < settlingMs ? settling : attestation;
}
