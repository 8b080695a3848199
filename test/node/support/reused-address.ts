/** Pods that get the address of the pod before them. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { clientPod, untilPodsReady } from './client-pods.ts';
import type { TestNode } from './node.ts';
import { assertGets } from './pod-kinds.ts';

const podNetwork = '/etc/cni/net.d/10-pod-network.conflist';
/** Where the plugin has a file for each address that a pod has. */
const takenAddresses = '/var/lib/cni/networks/pod-network';

/** Each pod gets its own token, or none, from its first request on. */
export async function assertReusedAddress(node: TestNode): Promise<void> {
  const taken = new Set(await readdir(node.machine.path(takenAddresses)));
  const all = Array.from({ length: 100 }, (_, at) => `10.244.0.${150 + at}`);
  const reusedIp = all.find((ip) => !taken.has(ip)) ?? '';
  const wide = await readFile(node.machine.path(podNetwork), 'utf8');
  const narrow = `"rangeStart": "${reusedIp}", "rangeEnd": "${reusedIp}", "subnet"`;
  node.machine.write(podNetwork, wide.replace('"subnet"', narrow));
  try {
    for (const [at, owner] of ['app', 'two', '', 'app', 'two'].entries()) {
      const name = `reuse-${at}`;
      const labels = owner === '' ? {} : { aadpodidbinding: owner };
      await node.apply(clientPod({ name, labels, args: ['ask-and-idle'] }));
      await untilPodsReady(node, name);
      const ip = ['get', 'pod', name, '--output=jsonpath={.status.podIP}'];
      assert.equal(await node.kubectl(ip), reusedIp);
      await assertGets(node, name, owner === '' ? '400' : owner);
      const first = await node.kubectl(['logs', name]);
      const identity = /"identity":"(\w+)"/.exec(first)?.[1] ?? '';
      assert.ok(identity === owner || identity === '', `pod ${name} first got ${first}`);
      // Half of the pods are deleted from the API server before they end on the node.
      const force = at % 2 === 0 ? [] : ['--grace-period=0', '--force'];
      await node.kubectl(['delete', 'pod', name, ...force]);
    }
  } finally {
    node.machine.write(podNetwork, wide);
  }
}
