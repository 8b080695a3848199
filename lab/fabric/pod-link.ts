/**
 * The links of a fabric's pods to the node, in the namespaces of both, and the networks that a pod
 * makes inside its own.
 */
import { createHash } from 'node:crypto';
import { runIpBatch } from './ip-tool.ts';

/**
 * `bridge`: a port of the bridge that pods share, as with kubenet and the CNI bridge plugin. `own`:
 * a link of its own with a route for the pod's address only, as with Azure CNI and Calico.
 */
export type PodLinkKind = 'bridge' | 'own';

export interface LinkedPod {
  readonly name: string;
  readonly namespace: string;
  readonly ip: string;
  readonly ipv6: string | undefined;
  readonly mac: string;
}

export interface Gateway {
  readonly ip: string;
  readonly ipv6: string;
}

/** In Calico, the same gateway and MAC for every pod: no other host can be on the link. */
const ownLinkGateway = '169.254.1.1';
export const ownLinkMac = 'ee:ee:ee:ee:ee:ee';
/** Of the network inside a pod, as Docker chooses it. */
const nestedGateway = '172.17.0.1';

/** @throws LabError `TOOL_FAILED`. */
export async function linkToBridge(node: string, pod: LinkedPod, gateway: Gateway): Promise<void> {
  const { namespace, ip, ipv6 } = pod;
  const link = linkName(pod.name);
  await runIpBatch(
    [
      `link add ${link} type veth peer name eth0 address ${pod.mac} netns ${namespace}`,
      `link set ${link} master cni0`,
      `link set ${link} up`,
    ],
    node,
  );
  await runIpBatch(
    [
      'link set lo up',
      `address add ${ip}/24 dev eth0`,
      ...(ipv6 === undefined ? [] : [`address add ${ipv6}/64 dev eth0 nodad`]),
      'link set eth0 up',
      `route add default via ${gateway.ip}`,
      ...(ipv6 === undefined ? [] : [`route add default via ${gateway.ipv6}`]),
    ],
    namespace,
  );
}

/** IPv4 only. @throws LabError `TOOL_FAILED`. */
export async function linkAlone(node: string, pod: LinkedPod): Promise<void> {
  const { namespace, ip } = pod;
  const link = linkName(pod.name);
  await runIpBatch(
    [
      `link add ${link} address ${ownLinkMac} type veth peer name eth0 address ${pod.mac} netns ${namespace}`,
      `link set ${link} up`,
      `route add ${ip}/32 dev ${link}`,
    ],
    node,
  );
  await runIpBatch(
    [
      'link set lo up',
      `address add ${ip}/32 dev eth0`,
      'link set eth0 up',
      `neighbor add ${ownLinkGateway} lladdr ${ownLinkMac} dev eth0 nud permanent`,
      `route add ${ownLinkGateway} dev eth0 scope link`,
      `route add default via ${ownLinkGateway}`,
    ],
    namespace,
  );
}

/**
 * A namespace behind a pod's namespace, as that of a container of Docker in Docker. Its
 * address is translated only by rules that others add to the pod. @throws LabError `TOOL_FAILED`.
 */
export async function linkInside(outer: string, inner: string, ip: string): Promise<void> {
  await runIpBatch([`netns add ${inner}`], undefined);
  await runIpBatch(
    [
      `link add docker0 type veth peer name eth0 netns ${inner}`,
      `address add ${nestedGateway}/32 dev docker0`,
      'link set docker0 up',
      `route add ${ip}/32 dev docker0`,
    ],
    outer,
  );
  await runIpBatch(
    [
      'link set lo up',
      `address add ${ip}/32 dev eth0`,
      'link set eth0 up',
      `route add ${nestedGateway} dev eth0 scope link`,
      `route add default via ${nestedGateway}`,
    ],
    inner,
  );
}

/** The node's end of a pod link; the kernel allows 15 characters. */
export function linkName(pod: string): string {
  return `veth${createHash('sha256').update(pod).digest('hex').slice(0, 10)}`;
}
