/** What a service mesh puts into a pod: netfilter rules, as Istio writes them, and a proxy. */
import { fileURLToPath } from 'node:url';
import type { Command } from '../fabric/lab-command.ts';

/** The port that a pod's outgoing connections are redirected to. */
export const outboundPort = 15_001;
/** The user of the proxy in a sidecar: its own connections are not redirected. */
const sidecarUser = 1_337;
/** Of the connections of ztunnel. */
const ztunnelMark = '0x539';

const forward = fileURLToPath(new URL('../../dist/lab/pods/forward', import.meta.url));

/** Runs a program as the user of the sidecar. */
export function asSidecar(command: Command): Command {
  const user = String(sidecarUser);
  return ['setpriv', '--reuid', user, '--regid', user, '--clear-groups', '--', ...command];
}

/** A sidecar that forwards bytes to their original destination. */
export const sidecarForward: Command = asSidecar([forward, String(outboundPort)]);

/** The same in a pod of its own, with its sockets in the network namespace of another pod. */
export function ztunnelForward(namespaceFile: string): Command {
  return [forward, String(outboundPort), namespaceFile, ztunnelMark];
}

/**
 * The rules of istio-iptables for a sidecar.
 * @param excluded the annotation `traffic.sidecar.istio.io/excludeOutboundIPRanges`.
 */
export function sidecarRules(excluded: readonly string[]): string {
  const user = String(sidecarUser);
  return `*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports ${outboundPort}
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner ${user} -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner ${user} -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner ${user} -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner ${user} -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner ${user} -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner ${user} -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
${excluded.map((range) => `-A ISTIO_OUTPUT -d ${range} -j RETURN\n`).join('')}-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
`;
}

/** The rules of Istio's ambient mode, inside each pod of the mesh. */
export const ambientRules = `*mangle
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark ${ztunnelMark}/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -s 169.254.7.127/32 -p tcp -j ACCEPT
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m mark ! --mark ${ztunnelMark}/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -d 169.254.7.127/32 -p tcp -j ACCEPT
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark ${ztunnelMark}/0xfff -j REDIRECT --to-ports ${outboundPort}
COMMIT
`;
