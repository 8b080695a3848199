/** `--keep`: a cluster of three pods that keeps running, and instructions for manual tests. */
import { tokenPath, vaultResource } from '../pods/pod.ts';
import type { TestBed } from './test-bed.ts';

/** @param namespaceOf undefined on loopback. @returns the instructions. */
export async function prepareKeep(
  testBed: TestBed,
  namespaceOf: ((space: string) => string) | undefined,
): Promise<string> {
  await testBed.reset();
  testBed.bind('app-a', 'app-a');
  testBed.bind('app-b', 'app-b');
  testBed.bind('app-b2', 'app-b');
  await testBed.addPod({ name: 'one', binding: 'app-a' });
  await testBed.addPod({ name: 'two', binding: 'app-b' });
  await testBed.addPod({ name: 'plain' });
  const query = `api-version=2018-02-01&resource=${vaultResource}`;
  const lines = [
    '',
    'The lab stays up until Ctrl-C. Three pods: one (identity app-a), two (app-b and',
    'app-b2), plain (no identity). Try it:',
  ];
  for (const pod of testBed.pods) {
    lines.push(
      namespaceOf === undefined
        ? `  curl --interface ${pod.ip} -s -H Metadata:true '${loopbackUrl(testBed)}${tokenPath}?${query}'`
        : `  ip netns exec ${namespaceOf(pod.name)} curl -s -H Metadata:true 'http://169.254.169.254${tokenPath}?${query}'`,
    );
  }
  const socket = testBed.environment.agentEnvironment['NMI_EXPLAIN_SOCKET'];
  lines.push(
    'What the agent says of one of them, and why:',
    `  NMI_EXPLAIN_SOCKET=${socket ?? ''} ${testBed.environment.agentCommand.join(' ')} explain --pod default/two`,
  );
  if (namespaceOf !== undefined) {
    const node = namespaceOf('node');
    lines.push(
      `  ip netns exec ${node} iptables -t nat -S nmi-metadata`,
      `  ip netns exec ${node} ip rule`,
      `  ip netns exec ${node} curl -s http://127.0.0.1:8085/readyz`,
      `  ip netns exec ${node} curl -s http://127.0.0.1:8085/metrics`,
      'Change the cluster, for instance take the binding of pod one away:',
      `  ip netns exec ${namespaceOf('azure')} curl -sk -X DELETE ${testBed.kube.url}/apis/aadpodidentity.k8s.io/v1/namespaces/default/azureidentitybindings/app-a`,
    );
  }
  return `${lines.join('\n')}\n\n`;
}

function loopbackUrl(testBed: TestBed): string {
  const port = testBed.environment.agentFlags.find((flag) => flag.startsWith('--nmi-port='));
  return `http://127.0.0.1:${port?.slice('--nmi-port='.length) ?? ''}`;
}
