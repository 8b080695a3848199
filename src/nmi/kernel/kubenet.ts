/**
 * Detects a kubenet node. There all pods share one bridge, and a pod with NET_RAW can take over another
 * pod's address by ARP (CVE-2021-1677), and with it the other pod's identity if callers are identified by
 * address. Looks at the kubelet's start file, as the replaced system did, and for kubenet's bridge, since
 * current kubelets have no such flag.
 */
import { access, readFile } from 'node:fs/promises';

const kubenetBridge = '/sys/class/net/cbr0/bridge';

/** The sign of kubenet that was found, or undefined. An absent file is inconclusive. */
export async function findKubenet(
  kubeletConfigPath: string,
  bridge = kubenetBridge,
): Promise<string | undefined> {
  const text = await readFile(kubeletConfigPath, 'utf8').catch(() => '');
  if (text.includes('--network-plugin=kubenet')) {
    return `${kubeletConfigPath} starts the kubelet with --network-plugin=kubenet`;
  }
  const hasBridge = await access(bridge).then(
    () => true,
    () => false,
  );
  return hasBridge ? 'the bridge cbr0 of kubenet is on this node' : undefined;
}
