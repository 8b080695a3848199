import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, createAgentPod, createPod, ok, play } from '../support/recorded-kubectl.ts';

const lines = [
  '{"namespace":"shop","pod":"web","requestId":"r1","msg":"a"}',
  '{"namespace":"other","pod":"web","requestId":"r2","msg":"b"}',
  'I1127 06:00:00 server.go:1] status (200) for pod web, r3',
  '{"msg":"watches are synced"}',
];
const testBed = {
  ...boundTestBed({ pods: [createPod('web'), createAgentPod('node-1'), createAgentPod('node-2')] }),
  other: () => ok(`${lines.join('\n')}\n`),
};

describe('kubectl nmi logs', () => {
  it('reads the agent of the pod, and the lines about the pod', async () => {
    const { stdout, calls } = await play(['logs', '--pod', 'web'], testBed);
    assert.deepEqual(stdout.trim().split('\n'), [lines[0], lines[2]]);
    assert.deepEqual(
      calls.map((words) => words.slice(1, 6)),
      [['logs', '--namespace=kube-system', 'nmi-node-1', '--container=nmi', '--tail=1000']],
    );
  });

  it('reads a whole node, or searches all for a request id', async () => {
    assert.equal(
      (await play(['logs', '--node', 'node-2'], testBed)).stdout.trim().split('\n').length,
      4,
    );
    const byId = await play(['logs', '--request-id', 'r2'], testBed);
    assert.equal(byId.stdout, [lines[1], lines[1], ''].join('\n'));
    assert.equal(byId.calls.length, 2);
  });

  it('refuses arguments that name no agent', async () => {
    assert.equal((await play(['logs'], testBed)).code, 2);
    assert.match(
      (await play(['logs', '--node', 'none'], testBed)).stderr,
      /no agent is on node none/,
    );
    assert.equal((await play(['logs', '--pod', 'none'], testBed)).code, 1);
  });
});
