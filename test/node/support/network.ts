/**
 * The node's network and Azure's side of it, as two linked namespaces: the node's default route
 * leads to 169.254.169.254. Named like those of the lab, so that the remains of a killed run are
 * removed.
 */
import { spawnSync } from 'node:child_process';
import { fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { runIpBatch } from '../../../lab/fabric/ip-tool.ts';
import { renderFabricPrefix, renderNamespaceName } from '../../../lab/fabric/names.ts';
import {
  namespacePath,
  removeNamespaces,
  sweepDeadFabrics,
} from '../../../lab/fabric/namespaces.ts';

export interface NodeNetwork extends Disposable {
  /** Paths of the namespaces, for nsenter. */
  readonly azurePath: string;
  readonly nodePath: string;
  /** For a reboot: a new namespace for the node, with only its link in it. */
  renew(): Promise<void>;
  /** Ends the processes in the node's namespace. */
  removeNode(): void;
}

const { azureIp, nodeIp, imdsIp, podCidr } = fabricAddresses;

export async function openNodeNetwork(): Promise<NodeNetwork> {
  sweepDeadFabrics();
  const prefix = renderFabricPrefix(process.pid, 'kubelet');
  const azure = renderNamespaceName(prefix, 'azure');
  const node = renderNamespaceName(prefix, 'node');
  const remove = (): void => {
    removeNamespaces([node, azure]);
  };
  process.once('exit', remove);
  await runIpBatch([`netns add ${azure}`], undefined);
  await runIpBatch(['link set lo up', `address add ${imdsIp}/32 dev lo`], azure);
  return {
    azurePath: namespacePath(azure),
    nodePath: namespacePath(node),
    async renew() {
      removeNamespaces([node]);
      // The kernel removes the links of a dead namespace later.
      spawnSync('ip', ['-netns', azure, 'link', 'delete', 'node'], { stdio: 'ignore' });
      await runIpBatch([`netns add ${node}`], undefined);
      await runIpBatch(
        [
          `link add node type veth peer name eth0 netns ${node}`,
          `address add ${azureIp}/24 dev node`,
          'link set node up',
          `route replace ${podCidr} via ${nodeIp}`,
        ],
        azure,
      );
      await runIpBatch(
        [
          'link set lo up',
          `address add ${nodeIp}/24 dev eth0`,
          'link set eth0 up',
          `route add default via ${azureIp}`,
        ],
        node,
      );
    },
    removeNode: () => {
      removeNamespaces([node]);
    },
    [Symbol.dispose]: () => {
      remove();
      process.off('exit', remove);
    },
  };
}
