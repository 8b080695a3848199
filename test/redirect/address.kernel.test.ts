/**
 * The address mode in a namespace of its own: a pod beside a node that has no metadata service, and
 * then one whose uplink does.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { openAddressRedirect } from '../../src/redirect/address.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';
import {
  openNamespace,
  sweepDeadNamespaces,
  whyNoKernelTests,
  type Namespace,
} from './namespaces.ts';

const skip = await whyNoKernelTests();
if (skip === false) await sweepDeadNamespaces();

const target = { metadataIp: '169.254.169.254', metadataPort: 80 } as const;

const server = (name: string) => `
  require('node:http').createServer((request, response) => response.end('${name}\\n'))
    .listen(80, '${target.metadataIp}', () => console.log('listening'));
  process.stdin.resume();
`;

/** One connection to the metadata address from a namespace: the reply, or the error code. */
async function dial(from: Namespace): Promise<string> {
  const script = `
    const request = require('node:http').get('http://${target.metadataIp}/', (response) =>
      response.on('data', (data) => process.stdout.write(data)));
    request.setTimeout(1500, () => request.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })));
    request.on('error', (error) => console.log(error.code));
  `;
  const result = await from.host.run(process.execPath, ['-e', script]);
  return result.kind === 'exited' ? result.stdout.trim() : result.why;
}

function modeIn(node: Namespace) {
  return openAddressRedirect({
    target,
    host: node.host,
    isAnswered: async () => !/^E[A-Z]+$|^TIMEOUT$/.test(await dial(node)),
  });
}

/** Links and their IPv4 addresses; whether a link is up already is a matter of time. */
async function linksOf(node: Namespace): Promise<string> {
  const lines = (await node.run('ip -br addr show')).trim().split('\n');
  return lines
    .map((line) =>
      line
        .split(/ +/)
        .filter((_, column) => column !== 1 && column < 3)
        .join(' '),
    )
    .join('\n');
}

describe('the address mode', { skip }, () => {
  let pod: Namespace;
  let node: Namespace;

  before(async () => {
    pod = await openNamespace();
    node = await openNamespace();
    await node.run(`ip link add pod0 type veth peer name eth0 netns ${pod.name}`);
    await node.run('ip addr add 10.244.0.1/24 dev pod0');
    await node.run('ip link set pod0 up');
    await pod.run('ip addr add 10.244.0.5/24 dev eth0');
    await pod.run('ip link set eth0 up');
    await pod.run('ip route add default via 10.244.0.1');
  });

  after(async () => {
    await pod[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  it('gives the node the address, at which a pod then reaches the agent', async () => {
    const mode = modeIn(node);
    const links = await linksOf(node);
    assert.equal((await mode.verify()).state, 'absent');
    await mode.prepare();
    const agent = node.start(server('agent'));
    assert.equal(await agent.line(), 'listening');
    const installed = await mode.install();
    assert.equal(installed.state, 'active');
    assert.deepEqual(installed.changed, [], 'prepared already');
    assert.equal(await dial(pod), 'agent');

    // Another agent, or this one restarted: by now the node itself has the address.
    assert.equal((await modeIn(node).install()).state, 'active');
    await agent.stop();
    assert.equal(await dial(pod), 'ECONNREFUSED', 'an absent agent is a refused connection');
    await mode.remove();
    await mode.remove();
    assert.equal(await linksOf(node), links);
  });

  it('is repaired when another process removes the address', async () => {
    const mode = modeIn(node);
    await mode.install();
    await node.run(`ip addr del ${target.metadataIp}/32 dev nmi0`);
    const broken = await mode.verify();
    assert.equal(broken.state, 'broken');
    assert.match(broken.problems.join(), /address 169\.254\.169\.254 missing from nmi0/);
    const repaired = await mode.install();
    assert.equal(repaired.state, 'active');
    assert.match(repaired.changed?.join() ?? '', /address 169\.254\.169\.254 added/);
    await mode.remove();
  });

  it('leaves a link of another owner alone', async () => {
    await node.run('ip link add nmi0 type veth peer name other0');
    const mode = modeIn(node);
    const status = await mode.install();
    assert.equal(status.state, 'broken');
    assert.match(status.problems.join(), /link nmi0 is not the agent's: it is a veth/);
    await mode.remove();
    assert.match(await linksOf(node), /nmi0/);
    await node.run('ip link del nmi0');
  });

  it('refuses to take the address of a real service', async () => {
    await using cloud = await openNamespace();
    await node.run(`ip link add up0 type veth peer name eth0 netns ${cloud.name}`);
    await node.run('ip addr add 10.0.0.4/24 dev up0');
    await node.run('ip link set up0 up');
    await node.run('ip route add default via 10.0.0.1');
    await cloud.run('ip addr add 10.0.0.1/24 dev eth0');
    await cloud.run(`ip addr add ${target.metadataIp}/32 dev lo`);
    await cloud.run('ip link set eth0 up');
    const real = cloud.start(server('real'));
    assert.equal(await real.line(), 'listening');
    const links = await linksOf(node);
    for (const step of ['prepare', 'install'] as const) {
      await assert.rejects(modeIn(node)[step](), (error) => {
        assert.ok(error instanceof RedirectError);
        assert.equal(error.code, 'CONFLICT');
        assert.match(error.message, /this node has a metadata service/);
        return true;
      });
    }
    assert.equal(await linksOf(node), links, 'nothing was changed');
    assert.equal(await dial(node), 'real');
  });
});
