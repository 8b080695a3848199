/** The place that the kernel reports for a pod when a connection from its address is accepted. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Place } from '../../../../src/redirect/redirect.ts';
import { openNamespace, sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';
import type { Namespace, Script } from '../namespaces.ts';

const skip = await whyNoKernelTests();
if (skip === false) await sweepDeadNamespaces();

const source = join(import.meta.dirname, '../../../../src/redirect/native/addon.ts');
const mac = '0a:58:0a:f4:00:05';
const otherMac = '0a:58:0a:f4:00:06';
const gatewayMac = '12:34:56:78:9a:bc';
/** The kernel ignores ARP changes for a neighbor within this time of the last one (locktime). */
const arpLockMs = 1_100;

/** Answers each connection with the place of its client; `nmi0` is the agent's own link here. */
const listener = `
  const { createServer } = require('node:net');
  import('${source}').then(({ nativeModule }) => {
    const { placeOf, ownsLink, hasLink } = nativeModule();
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end(JSON.stringify(placeOf(socket.remoteAddress) ?? 'unknown'));
    });
    server.listen(2579, '169.254.25.79', () => console.log('ready'));
    require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
      const [verb, about] = line.split(' ');
      const answers = {
        place: () => placeOf(about) ?? 'unknown',
        owns: () => ownsLink(about),
        link: () => hasLink(Number(about)),
      };
      console.log(JSON.stringify(answers[verb]()));
    });
  });
`;

describe('the place of an address', { skip }, () => {
  let node: Namespace;
  let agent: Script;
  const pods: Namespace[] = [];

  before(async () => {
    node = await openNamespace();
    await node.run('ip link add nmi0 type bridge');
    await node.run('ip link set nmi0 up');
    await node.run('ip address add 169.254.25.79/32 dev nmi0');
    await node.run('ip link add cni0 type bridge');
    await node.run('ip address add 10.244.0.1/24 dev cni0');
    await node.run('ip link set cni0 up');
    agent = node.start(listener);
    assert.equal(await agent.line(), 'ready');
  });
  after(async () => {
    for (const pod of pods) await pod[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  async function addPod(link: string, address: string, pod: string): Promise<Namespace> {
    const namespace = await openNamespace();
    pods.push(namespace);
    await node.run(
      `ip link add ${link} type veth peer name eth0 address ${pod} netns ${namespace.name}`,
    );
    await node.run(`ip link set ${link} up`);
    await namespace.run(`ip address add ${address} dev eth0`);
    await namespace.run('ip link set eth0 up');
    return namespace;
  }

  async function addBridged(link: string, address: string, pod: string): Promise<Namespace> {
    const namespace = await addPod(link, `${address}/24`, pod);
    await node.run(`ip link set ${link} master cni0`);
    await namespace.run('ip route add default via 10.244.0.1');
    return namespace;
  }

  /** Like the Azure CNI and Calico. */
  async function addRouted(link: string, address: string): Promise<Namespace> {
    const namespace = await addPod(link, `${address}/32`, mac);
    await node.run(`ip link set ${link} address ${gatewayMac}`);
    await node.run(`ip route replace ${address}/32 dev ${link}`);
    await namespace.run('ip route add 169.254.1.1 dev eth0');
    await namespace.run(`ip neigh replace 169.254.1.1 lladdr ${gatewayMac} dev eth0`);
    await namespace.run('ip route add default via 169.254.1.1');
    return namespace;
  }

  async function indexOf(link: string): Promise<number> {
    const [found] = JSON.parse(await node.run(`ip -j link show ${link}`)) as { ifindex: number }[];
    return found?.ifindex ?? 0;
  }

  /** The place that the agent finds for a connection from there. */
  async function connectFrom(pod: Namespace, address: string): Promise<Place | 'unknown'> {
    const client = pod.start(`
      const open = () => require('node:net')
        .connect({ host: '169.254.25.79', port: 2579, localAddress: '${address}' })
        .once('error', () => setTimeout(open, 200))
        .once('data', (text) => console.log(String(text)));
      open();
    `);
    const place = JSON.parse(await client.line()) as Place | 'unknown';
    await client.stop();
    return place;
  }

  async function ask(line: string): Promise<unknown> {
    agent.say(line);
    return JSON.parse(await agent.line());
  }

  it('is the port of the bridge, and a new one for the next pod with the same address and MAC', async () => {
    const first = await addBridged('veth1', '10.244.0.5', mac);
    const [bridge, port] = [await indexOf('cni0'), await indexOf('veth1')];
    assert.deepEqual(await connectFrom(first, '10.244.0.5'), { link: bridge, port, mac });
    assert.equal(await ask(`link ${port}`), true);
    await node.run('ip link del veth1');
    assert.equal(await ask(`link ${port}`), false);
    const second = await addBridged('veth1', '10.244.0.5', mac);
    const nextPort = await indexOf('veth1');
    assert.notEqual(nextPort, port, 'an index is not reused');
    assert.deepEqual(await connectFrom(second, '10.244.0.5'), {
      link: bridge,
      port: nextPort,
      mac,
    });
    await node.run('ip link del veth1');
  });

  it('is that of the neighbor that answers ARP for the address, not the pod’s', async () => {
    const victim = await addBridged('veth2', '10.244.0.7', mac);
    const forger = await addBridged('veth3', '10.244.0.8', otherMac);
    const own = await connectFrom(victim, '10.244.0.7');
    await delay(arpLockMs);
    await victim.run('ip link set eth0 down');
    await forger.run('ip address add 10.244.0.7/24 dev eth0');
    await node.run('ip neigh flush dev cni0');
    const forged = await connectFrom(forger, '10.244.0.7');
    const [bridge, port] = [await indexOf('cni0'), await indexOf('veth3')];
    assert.deepEqual(forged, { link: bridge, port, mac: otherMac });
    assert.notDeepEqual(forged, own);
    assert.equal(
      await ask(`link ${await indexOf('veth2')}`),
      true,
      'the pod’s link is still there',
    );
  });

  it('is the link of its own route', async () => {
    const first = await addRouted('azv1', '10.245.0.5');
    const link = await indexOf('azv1');
    assert.deepEqual(await ask('place 10.245.0.5'), { link }, 'before it has sent anything');
    assert.deepEqual(await connectFrom(first, '10.245.0.5'), { link });
    await node.run('ip link del azv1');
    assert.equal(await ask('place 10.245.0.5'), 'unknown');
    const second = await addRouted('azv1', '10.245.0.5');
    const next = await indexOf('azv1');
    assert.notEqual(next, link);
    assert.deepEqual(await connectFrom(second, '10.245.0.5'), { link: next });
  });

  it('is the MAC where many pods share a link that is no bridge', async () => {
    const pod = await addPod('shim', '10.246.0.5/24', mac);
    await node.run('ip address add 10.246.0.1/24 dev shim');
    await pod.run('ip route add default via 10.246.0.1');
    const link = await indexOf('shim');
    assert.deepEqual(await connectFrom(pod, '10.246.0.5'), { link, mac });
  });

  it('is none without a route, behind a gateway, for an absent neighbor, or for the node', async () => {
    await node.run('ip route add 10.247.0.0/16 via 10.244.0.200');
    for (const ip of ['192.0.2.1', '10.247.0.1', '10.244.0.99', '10.244.0.1', '127.0.0.1']) {
      assert.equal(await ask(`place ${ip}`), 'unknown', ip);
    }
  });

  it('is a link of its own only over a veth to one namespace, for this address alone', async () => {
    await addRouted('azv2', '10.248.0.5');
    assert.equal(await ask('owns 10.248.0.5'), true);
    await node.run('ip link set azv2 master cni0');
    assert.equal(await ask('owns 10.248.0.5'), false, 'a port of a bridge');
    await node.run('ip link set azv2 nomaster');
    assert.equal(await ask('owns 10.248.0.5'), true);
    await node.run('ip route add 10.244.0.5/32 dev cni0');
    assert.equal(await ask('owns 10.244.0.5'), false, 'a bridge');
    await node.run('ip link set lo up');
    await node.run('ip route add 10.248.0.6/32 dev lo');
    assert.equal(await ask('owns 10.248.0.6'), false, 'a link that is no veth');
    await node.run('ip route add 10.248.0.7/32 via 10.244.0.200');
    assert.equal(await ask('owns 10.248.0.7'), false, 'behind a gateway');
    for (const ip of ['10.246.0.5', '10.244.0.1', '192.0.2.1']) {
      assert.equal(await ask(`owns ${ip}`), false, ip);
    }
  });
});
