/**
 * The redirect of two processes: one installs, the other waits for it, reads what is pinned and
 * attests. What the other ways owe by themselves these two owe together.
 */
import assert from 'node:assert/strict';
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openPinnedRedirect } from '../../../src/nmi/kernel/external-redirect.ts';
import type { Redirect } from '../../../src/redirect/redirect.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-ground.ts';
import { EbpfWorld, type Client } from '../ebpf-world.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save', 'nsenter', 'cc')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = DEFAULT_TARGET;
const dial = `dial ${metadataIp} 80`;
const source = join(import.meta.dirname, '../../../src');

/** Waits for the address in a namespace, as the agent does before it listens. */
const waiter = (pinFolder: string) => `
  process.stdin.resume();
  import('${source}/nmi/kernel/external-redirect.ts').then(async ({ openPinnedRedirect }) => {
    const pinned = openPinnedRedirect({ pinFolder: '${pinFolder}' });
    console.log((await pinned.verify()).state);
    await pinned.prepare();
    console.log('prepared');
  });
`;

/** Keeps the kernel's side: installs when told, and says how it went. */
const installer = (world: EbpfWorld) => `
  const source = '${source}/redirect/';
  require('node:readline').createInterface({ input: process.stdin }).on('line', async (order) => {
    const [{ openEbpfRedirect }, { openIptablesRedirect }] = await Promise.all(
      ['ebpf/ebpf', 'iptables/iptables'].map((name) => import(source + name + '.ts')));
    const redirect = openEbpfRedirect({
      cgroupRoot: '${world.tree.path}',
      pinFolder: '${world.pinFolder}',
      behind: openIptablesRedirect({ backend: 'nft' }),
    });
    if (order === 'remove') console.log((await redirect.remove()) ?? 'removed');
    else console.log((await redirect.install()).state);
  });
`;

describe('the pinned redirect beside a process that installs', { skip }, () => {
  let world: EbpfWorld;
  let pinned: Redirect;
  let pod: Client;
  let hostPod: Client;
  let kernelSide: ReturnType<EbpfWorld['node']['start']>;

  before(async () => {
    world = await EbpfWorld.open();
    await world.startCloud();
    pod = world.client(world.podA, 'poda/c1');
    hostPod = world.client(world.node, 'podhost/c1');
    pinned = openPinnedRedirect({ pinFolder: world.pinFolder });
    kernelSide = world.node.start(installer(world));
  });
  after(() => world.close());

  async function order(text: string): Promise<string> {
    kernelSide.say(text);
    return kernelSide.line();
  }

  /** Who a client's open connection is by what this process reads. */
  async function attestKept(client: Client, ip: string) {
    const kept = await client.tell(`keep ${metadataIp} 80`);
    const remotePort = Number(/ through (\d+) /.exec(kept)?.[1]);
    const peer = { remoteIp: ip, remotePort, localIp: listenIp, localPort: listenPort };
    await pinned.verify();
    const attestation = pinned.attest(peer);
    assert.equal(await client.tell('drop'), 'dropped');
    return attestation;
  }

  it('is absent and waits until the other one has made the address', async () => {
    const agent = world.node.start(waiter(world.pinFolder));
    assert.equal(await agent.line(), 'absent');
    const prepared = agent.line();
    const first = await Promise.race([prepared, pod.tell(dial)]);
    assert.match(first, /^cloud sees/, 'it is prepared though nobody installed');
    assert.equal(await order('install'), 'active');
    assert.equal(await prepared, 'prepared');
    await agent.stop();
  });

  it('is closed while nobody listens, and reads as active', async () => {
    assert.equal((await pinned.verify()).state, 'active');
    assert.equal(await pod.tell(dial), 'ECONNREFUSED');
    await world.startAgent();
  });

  it('knows callers, on the host network too, and nobody else', async () => {
    const attested = (client: Client) => ({ kind: 'attested', cgroupId: client.cgroupId });
    assert.deepEqual(await attestKept(pod, '10.244.0.5'), attested(pod));
    assert.deepEqual(await attestKept(hostPod, listenIp), attested(hostPod));
    assert.deepEqual(await attestKept(pod, '10.244.0.6'), { kind: 'unattested' });
  });

  it('changes nothing itself: installing is reading, and removing is refused', async () => {
    const status = await pinned.verify();
    assert.deepEqual(await pinned.install(), status);
    await assert.rejects(pinned.remove(), { code: 'NOT_PERMITTED', step: 'remove' });
    assert.match(await pod.tell(dial), new RegExp(` attested ${pod.cgroupId} `));
  });

  it('sees what is broken, and mended by the other one under load', async () => {
    assert.equal(await pod.tell('storm'), 'storming');
    for (const name of ['settings', 'callers']) {
      unlinkSync(join(world.pinFolder, name));
      assert.notEqual((await pinned.verify()).state, 'active', name);
      assert.equal(await order('install'), 'active');
      assert.deepEqual((await pinned.verify()).problems, []);
    }
    const seen = JSON.parse(await pod.tell('calm')) as Record<string, number>;
    assert.equal(seen['cloud'], undefined);
    // A map of callers that is another one now.
    assert.equal((await attestKept(pod, '10.244.0.5')).kind, 'attested');
  });

  it('goes on when the other one is killed, and with its successor', async () => {
    await kernelSide.stop();
    assert.equal((await pinned.verify()).state, 'active');
    assert.equal((await attestKept(pod, '10.244.0.5')).kind, 'attested');
    kernelSide = world.node.start(installer(world));
    assert.equal(await order('install'), 'active');
    assert.equal((await attestKept(pod, '10.244.0.5')).kind, 'attested');
  });

  it('is absent again when the other one has opened the node', async () => {
    assert.equal(await order('remove'), 'removed');
    const status = await pinned.verify();
    assert.equal(status.state, 'absent');
    assert.deepEqual(status.problems, ['no programs installed']);
    assert.match(await pod.tell(dial), /^cloud sees/);
  });
});
