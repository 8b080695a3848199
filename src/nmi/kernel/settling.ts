/**
 * Connections from before the redirect. Between the rules of netfilter and the programs of eBPF, at a boot or
 * an upgrade, a pod can open a connection that reaches the agent without a record of who opened it.
 * SDKs take a 403 for final, so it is answered 503 as long as it may be such a one; the next one has a record.
 */
import type { Attestation } from '../../redirect/redirect.ts';

/** A SYN without an answer is sent again after 1 s and after 3 s; what is older has been given up. */
const settlingMs = 5_000;

const settling: Attestation = {
  kind: 'unavailable',
  why: 'the redirect was installed seconds ago, and this connection may be older',
};

/** @param activeForMs how long the redirect has been in place; 0 before. */
export function whileSettling(attestation: Attestation, activeForMs: number): Attestation {
  return attestation.kind === 'unattested' && activeForMs < settlingMs ? settling : attestation;
}
