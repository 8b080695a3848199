import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';

import { attachFabric, fabricAddresses, openFabric, type Fabric } from '../../lab/fabric/fabric.ts';
import {
  findProcesses,
  listFabricNamespaces,
  listLabNamespaces,
} from '../../lab/fabric/namespaces.ts';
import { openFabricPod } from '../../lab/pods/pod-client.ts';
import { fabricSkip, supportCommand } from './support/fabric-pod.ts';

async function runIn(fabric: Fabric, space: string, command: string, ...args: string[]) {
  const child = fabric.exec(space, command, args);
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (more: string) => (text += more));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, text };
}

function isRunning(pid: number | undefined): boolean {
  assert.ok(pid !== undefined);
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${String(pid)}/status`, 'latin1'));
  } catch {
    return false;
  }
}

/** The links of the machine's own namespace, which no fabric may touch. */
function machineLinks(): readonly string[] {
  return readdirSync('/sys/class/net').toSorted();
}

async function readLine(child: ChildProcess): Promise<string> {
  assert.ok(child.stdout !== null);
  const lines = createInterface({ input: child.stdout });
  const [line] = (await once(lines, 'line')) as [string];
  lines.close();
  return line;
}

describe('fabric', { skip: fabricSkip }, () => {
  test('an unredirected pod reaches the fake IMDS with its own address and gets the node identity', async () => {
    await using fabric = await openFabric({ name: 'direct' });
    const [program, script] = supportCommand('imds-server.ts');
    const imds = fabric.exec('azure', program, [script, fabricAddresses.imdsIp], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const listening = readLine(imds);
    const { ip } = await fabric.addPod('web');
    await using pod = await openFabricPod({ fabric, space: 'web' });
    assert.equal(await listening, 'listening');
    const answer = await pod.request({
      method: 'GET',
      target: '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x',
      headers: ['Metadata', 'true'],
      connection: 'new',
      timeoutMs: 2_000,
    });
    assert.equal(answer.outcome === 'answered' && answer.status, 200);
    const seen = readLine(imds);
    imds.stdin?.write('?\n');
    assert.deepEqual(JSON.parse(await seen), { leaks: 1, from: ip });
  });

  test('a pod has its own addresses, a route out and a deterministic MAC address', async () => {
    await using fabric = await openFabric({ name: 'pods' });
    const web = await fabric.addPod('web', { ip: '10.244.0.77' });
    const next = await fabric.addPod('next');
    assert.equal(web.ip, '10.244.0.77');
    assert.equal(next.ip, '10.244.0.2');
    const { text } = await runIn(fabric, 'web', 'ip', '-o', 'address', 'show', 'dev', 'eth0');
    for (const ip of web.ips) assert.ok(text.includes(` ${ip}/`), text);
    // The kernel's own link-local address may still be tentative; ours must not be.
    assert.doesNotMatch(text, /scope global.*tentative/);
    const mac = await runIn(fabric, 'web', 'ip', '-o', 'link', 'show', 'dev', 'eth0');
    assert.match(mac.text, /0a:58:0a:f4:00:4d/);
    await assert.rejects(fabric.addPod('third', { ip: '10.244.0.77' }), { code: 'ADDRESS_TAKEN' });
    await assert.rejects(fabric.addPod('web'), { code: 'NAME_REFUSED' });
    await assert.rejects(fabric.addPod('node'), { code: 'NAME_REFUSED' });
  });

  test('a pod with a link of its own is reached by a route for its address, and itself by a gateway', async () => {
    await using fabric = await openFabric({ name: 'alone' });
    const { ip, ips } = await fabric.addPod('alone', { link: 'own' });
    assert.deepEqual(ips, [ip]);
    const { text } = await runIn(fabric, 'node', 'ip', 'route', 'get', ip);
    assert.match(text, new RegExp(`^${ip} dev veth`));
    const out = await runIn(fabric, 'alone', 'ip', 'route', 'get', fabricAddresses.imdsIp);
    assert.match(out.text, / via 169\.254\.1\.1 dev eth0 /);
    await fabric.removePod('alone');
    const after = await runIn(fabric, 'node', 'ip', 'route', 'get', ip);
    assert.match(after.text, / dev cni0 /, 'the route ends with the link');
  });

  test('a network inside a pod reaches others through the pod, and is removed with it', async () => {
    await using fabric = await openFabric({ name: 'inside' });
    await fabric.addPod('outer');
    const inside = await fabric.addInside('outer');
    const { text } = await runIn(fabric, inside, 'ip', 'route', 'get', fabricAddresses.imdsIp);
    assert.match(text, / via 172\.17\.0\.1 dev eth0 src 172\.17\.0\.2 /);
    await fabric.removePod('outer');
    assert.deepEqual(
      listFabricNamespaces(fabric.prefix).toSorted(),
      ['azure', 'node'].map((space) => fabric.namespaceOf(space)),
    );
  });

  test('an address is usable at once by the next pod after its pod was removed', async () => {
    await using fabric = await openFabric({ name: 'reuse' });
    const [program, script] = supportCommand('imds-server.ts');
    const imds = fabric.exec('azure', program, [script, fabricAddresses.imdsIp], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await readLine(imds);
    for (const name of ['first', 'second']) {
      await fabric.addPod(name, { ip: '10.244.0.9' });
      await using pod = await openFabricPod({ fabric, space: name });
      const answer = await pod.request({
        method: 'GET',
        target: '/metadata/versions',
        headers: ['Metadata', 'true'],
        connection: 'new',
        timeoutMs: 1_000,
      });
      assert.equal(answer.outcome, 'answered', name);
      await fabric.removePod(name);
    }
    assert.deepEqual(
      listFabricNamespaces(fabric.prefix).toSorted(),
      ['azure', 'node'].map((space) => fabric.namespaceOf(space)),
    );
  });

  test('the gateway of the pods keeps its MAC address, whichever pods are added and removed', async () => {
    await using fabric = await openFabric({ name: 'gateway' });
    const readMac = async (): Promise<string> => {
      const { text } = await runIn(fabric, 'node', 'ip', '-br', 'link', 'show', 'cni0');
      return / ([0-9a-f:]{17}) /.exec(text)?.[1] ?? text;
    };
    const mac = await readMac();
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const name of names) {
      await fabric.addPod(name);
      assert.equal(await readMac(), mac, `pod ${name} was added`);
    }
    for (const name of names) {
      await fabric.removePod(name);
      assert.equal(await readMac(), mac, `pod ${name} was removed`);
    }
  });

  test('closing ends every process inside and leaves no namespace or link', async () => {
    const before = machineLinks();
    await using fabric = await openFabric({ name: 'close' });
    await fabric.addPod('web');
    const children = ['azure', 'node', 'web'].map((space) =>
      fabric.exec(space, 'sh', ['-c', 'trap "" TERM INT HUP; sleep 600 & echo up; wait']),
    );
    await Promise.all(children.map(readLine));
    assert.equal(findProcesses(listFabricNamespaces(fabric.prefix)).length, 6);
    assert.deepEqual(machineLinks(), before);
    await fabric.close();
    await fabric.close();
    assert.deepEqual(listFabricNamespaces(fabric.prefix), []);
    for (const child of children) assert.ok(!isRunning(child.pid));
    assert.deepEqual(machineLinks(), before);
  });

  test('two fabrics at once do not see each other, and closing one leaves the other', async () => {
    await using left = await openFabric({ name: 'left' });
    await using right = await openFabric({ name: 'right' });
    await Promise.all([left.addPod('web'), right.addPod('web')]);
    await right.close();
    const { code } = await runIn(left, 'web', 'true');
    assert.equal(code, 0);
    assert.equal(listFabricNamespaces(left.prefix).length, 3);
    await assert.rejects(openFabric({ name: 'left' }), { code: 'NAME_REFUSED' });
    assert.equal(listFabricNamespaces(left.prefix).length, 3);
  });

  test('a fabric that fails while it is made leaves nothing', async () => {
    // Without nsenter, the setup fails when both namespaces and their links already exist.
    const tools = mkdtempSync(join(tmpdir(), 'nmi-lab-tools-'));
    const path = process.env['PATH'];
    const { stdout } = spawnSync('sh', ['-c', 'command -v ip'], { encoding: 'utf8' });
    symlinkSync(stdout.trim(), join(tools, 'ip'));
    process.env['PATH'] = tools;
    try {
      await assert.rejects(openFabric({ name: 'half' }), { code: 'TOOL_MISSING' });
    } finally {
      process.env['PATH'] = path;
      rmSync(tools, { recursive: true });
    }
    const left = listLabNamespaces().filter((name) => name.includes('.half-'));
    assert.deepEqual(left, []);
  });

  test('another process can attach by the prefix and add pods, and the owner removes them', async () => {
    await using fabric = await openFabric({ name: 'attach' });
    const attached = attachFabric(fabric.prefix);
    await attached.addPod('late');
    assert.equal(listFabricNamespaces(fabric.prefix).length, 3);
    await fabric.close();
    assert.deepEqual(listFabricNamespaces(fabric.prefix), []);
    assert.throws(() => attachFabric(fabric.prefix), { code: 'NAMESPACE_WRONG' });
  });

  test('an owner that dies of an uncaught error leaves nothing', () => {
    const [program, script] = supportCommand('fabric-owner.ts');
    const owner = spawnSync(program, [script, 'throw'], { encoding: 'utf8' });
    assert.match(owner.stderr, /on purpose/);
    assert.notEqual(owner.status, 0);
    const [prefix = '', childPid] = owner.stdout.trim().split(' ');
    assert.match(prefix, /^nmi-lab-/);
    assert.deepEqual(listFabricNamespaces(prefix), []);
    assert.ok(!isRunning(Number(childPid)));
  });

  test('after an owner was killed its processes have ended, and the next fabric removes the rest', async () => {
    const [program, script] = supportCommand('fabric-owner.ts');
    const owner = spawn(program, [script, 'wait'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [prefix = '', childPid] = (await readLine(owner)).split(' ');
    assert.ok(isRunning(Number(childPid)));
    owner.kill('SIGKILL');
    await once(owner, 'close');
    await using next = await openFabric({ name: 'sweeper' });
    assert.deepEqual(listFabricNamespaces(prefix), []);
    assert.ok(!isRunning(Number(childPid)));
    assert.equal(listFabricNamespaces(next.prefix).length, 2);
  });
});
