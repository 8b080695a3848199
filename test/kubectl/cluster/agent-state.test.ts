import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAgentPod, failed, ok, play } from '../support/recorded-kubectl.ts';

const pods = [createAgentPod('node-1')];

describe('the metrics page of an agent', () => {
  it('is read through the proxy of the API server', async () => {
    const { stdout, calls } = await play(['sysdump'], {
      objects: { pods },
      other: (_program, args) => ok(args[0] === 'get' ? 'nmi_ready{condition="x"} 1\n' : ''),
    });
    assert.match(stdout, /nmi_ready\{condition="x"\} 1/);
    const read = calls.find((words) => words.some((word) => word.includes('proxy')));
    assert.deepEqual(read?.slice(0, 3), [
      'kubectl',
      'get',
      '--raw=/api/v1/namespaces/kube-system/pods/nmi-node-1:9090/proxy/metrics',
    ]);
  });

  it('is among what could not be read, with the right that would show it', async () => {
    const stderr =
      'Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot get resource "pods/proxy" in API group "" in the namespace "kube-system"';
    const { stdout } = await play(['sysdump'], { objects: { pods }, other: () => failed(stderr) });
    assert.match(stdout, /what: read the metrics of kube-system\/nmi-node-1\n +why: .*pods\/proxy/);
  });
});

describe('the nodes', () => {
  it('are not checked without the right to list them', async () => {
    const forbidden = { nodes: 'everywhere' } as const;
    const other = () => ok('{"serverVersion":{"gitVersion":"v1.34.2"}}');
    const { stdout } = await play(['doctor'], { objects: { pods }, forbidden, other });
    assert.match(stdout, /Not checked:\n[^]*nodes without an agent/);
  });
});
