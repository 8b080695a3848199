import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';

import {
  attachFabric,
  fabricAddresses,
  openFabric,
  type Fabric,
} from '../../../lab/fabric/fabric.ts';
import {
  findProcesses,
  listFabricNamespaces,
  listLabNamespaces,
} from '../../../lab/fabric/namespaces.ts';
import { openFabricPod } from '../../../lab/pods/pod-client.ts';
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

/** The fake IMDS behind a fabric, which answers `?` with the leaks and the last caller that it has seen. */
async function startImds(fabric: Fabric): Promise<ChildProcess> {
  const [program, script] = supportCommand('imds-server.ts');
  const imds = fabric.exec('azure', program, [script, fabricAddresses.imdsIp], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  assert.equal(await readLine(imds), 'listening');
  return imds;
}

async function askFrom(fabric: Fabric, space: string, target: string) {
  await using pod = await openFabricPod({ fabric, space });
  const answer = await pod.request({
    method: 'GET',
    target,
    headers: ['Metadata', 'true'],
    connection: 'new',
    timeoutMs: 2_000,
  });
  return answer.outcome === 'answered' && answer.status;
}

function assertOnlyNode(fabric: Fabric): void {
  const expected = ['azure', 'node'].map((space) => fabric.namespaceOf(space));
  assert.deepEqual(listFabricNamespaces(fabric.prefix).toSorted(), expected);
}

describe('fabric', { skip: fabricSkip }, () => {
  test('an unredirected pod reaches the fake IMDS with its own address and gets the node identity', async () => {
    await using fabric = await openFabric({ name: 'direct' });
    const imds = await startImds(fabric);
    const { ip } = await fabric.addPod('web');
    const token = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x';
    assert.equal(await askFrom(fabric, 'web', token), 200);
    const seen = readLine(imds);
    imds.stdin?.write('?\n');
    assert.deepEqual(JSON.parse(await seen), { leaks: 1, from: ip });
    // The address is usable at once by the next pod.
    for (const name of ['first', 'second']) {
      await fabric.addPod(name, { ip: '10.244.0.9' });
      assert.equal(await askFrom(fabric, name, '/metadata/versions'), 200, name);
      await fabric.removePod(name);
    }
    await fabric.removePod('web');
    assertOnlyNode(fabric);
  });

  test('a pod has its own addresses and a deterministic MAC address', async () => {
    await using fabric = await openFabric({ name: 'pods' });
    const { ip, ips } = await fabric.addPod('web', { ip: '10.244.0.77' });
    assert.deepEqual([ip, (await fabric.addPod('next')).ip], ['10.244.0.77', '10.244.0.2']);
    const { text } = await runIn(fabric, 'web', 'ip', 'address', 'show', 'dev', 'eth0');
    for (const each of ips) assert.ok(text.includes(` ${each}/`), text);
    // The kernel's own link-local address may still be tentative; ours must not be.
    assert.doesNotMatch(text, /scope global.*tentative/);
    assert.match(text, /0a:58:0a:f4:00:4d/);
    await assert.rejects(fabric.addPod('third', { ip }), { code: 'ADDRESS_TAKEN' });
    for (const name of ['web', 'node']) {
      await assert.rejects(fabric.addPod(name), { code: 'NAME_REFUSED' });
    }
  });

  test('a pod may have a link or a network of its own, with routes that end with it', async () => {
    await using fabric = await openFabric({ name: 'alone' });
    const { ip, ips } = await fabric.addPod('alone', { link: 'own' });
    assert.deepEqual(ips, [ip]);
    await fabric.addPod('outer');
    const inside = await fabric.addInside('outer');
    const routeFrom = async (space: string, to: string): Promise<string> =>
      (await runIn(fabric, space, 'ip', 'route', 'get', to)).text;
    const { imdsIp } = fabricAddresses;
    assert.match(await routeFrom('node', ip), new RegExp(`^${ip} dev veth`));
    assert.match(await routeFrom('alone', imdsIp), / via 169\.254\.1\.1 dev eth0 /);
    assert.match(await routeFrom(inside, imdsIp), / via 172\.17\.0\.1 dev eth0 src 172\.17\.0\.2 /);
    for (const name of ['alone', 'outer']) await fabric.removePod(name);
    assert.match(await routeFrom('node', ip), / dev cni0 /, 'the route ends with the link');
    assertOnlyNode(fabric);
  });

  test('the gateway of the pods keeps its MAC address, whichever pods are added and removed', async () => {
    await using fabric = await openFabric({ name: 'gateway' });
    const readMac = async (): Promise<string> => {
      const { text } = await runIn(fabric, 'node', 'ip', '-br', 'link', 'show', 'cni0');
      return / ([0-9a-f:]{17}) /.exec(text)?.[1] ?? text;
    };
    const mac = await readMac();
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const change of [fabric.addPod.bind(fabric), fabric.removePod.bind(fabric)]) {
      for (const name of names) {
        await change(name);
        assert.equal(await readMac(), mac, `pod ${name}`);
      }
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
    // As another process adds pods, which the owner removes.
    await attachFabric(right.prefix).addPod('late');
    await right.close();
    assert.deepEqual(listFabricNamespaces(right.prefix), []);
    assert.throws(() => attachFabric(right.prefix), { code: 'NAMESPACE_WRONG' });
    assert.equal((await runIn(left, 'web', 'true')).code, 0);
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
