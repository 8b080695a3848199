/** `--keep`: a standing cluster of three pods, and how to try it by hand. */
import { tokenPath, vaultResource } from '../pods/pod.ts';
import type { World } from './world.ts';

/** @param namespaceOf undefined on loopback. @returns the instructions. */
export async function prepareStay(
  world: World,
  namespaceOf: ((space: string) => string) | undefined,
): Promise<string> {
  await world.reset();
  world.bind('app-a', 'app-a');
  world.bind('app-b', 'app-b');
  world.bind('app-b2', 'app-b');
  await world.addPod({ name: 'one', binding: 'app-a' });
  await world.addPod({ name: 'two', binding: 'app-b' });
  await world.addPod({ name: 'plain' });
  const query = `api-version=2018-02-01&resource=${vaultResource}`;
  const lines = [
    '',
    'The lab stays up until Ctrl-C. Three pods: one (identity app-a), two (app-b and',
    'app-b2), plain (no identity). Try it:',
  ];
  for (const pod of world.pods) {
    lines.push(
      namespaceOf === undefined
        ? `  curl --interface ${pod.ip} -s -H Metadata:true '${loopbackUrl(world)}${tokenPath}?${query}'`
        : `  ip netns exec ${namespaceOf(pod.name)} curl -s -H Metadata:true 'http://169.254.169.254${tokenPath}?${query}'`,
    );
  }
  const socket = world.ground.agentEnvironment['NMI_EXPLAIN_SOCKET'];
  lines.push(
    'What the agent says of one of them, and why:',
    `  NMI_EXPLAIN_SOCKET=${socket ?? ''} ${world.ground.agentCommand.join(' ')} explain --pod default/two`,
  );
  if (namespaceOf !== undefined) {
    const node = namespaceOf('node');
    lines.push(
      `  ip netns exec ${node} iptables -t nat -S aad-metadata`,
      `  ip netns exec ${node} ip rule`,
      `  ip netns exec ${node} curl -s http://127.0.0.1:8085/readyz`,
      `  ip netns exec ${node} curl -s http://127.0.0.1:8085/metrics`,
      'Change the cluster, for instance take the binding of pod one away:',
      `  ip netns exec ${namespaceOf('azure')} curl -s -X DELETE ${world.kube.url}/apis/aadpodidentity.k8s.io/v1/namespaces/default/azureidentitybindings/app-a`,
    );
  }
  return `${lines.join('\n')}\n\n`;
}

function loopbackUrl(world: World): string {
  const port = world.ground.agentFlags.find((flag) => flag.startsWith('--nmi-port='));
  return `http://127.0.0.1:${port?.slice('--nmi-port='.length) ?? ''}`;
}
