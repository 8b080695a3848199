/**
 * The agent asks the sockets that it accepts who called. It has uid 65532, no capability, `no_new_privs`, and a
 * cgroup namespace of its own, as in a container.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, describe, it } from 'node:test';
import { nativeFolder } from '../../../../scripts/native.ts';
import { cgroupIdOf } from '../../../../src/redirect/cgroup/cgroup-tree.ts';
import { installPrograms } from '../../../../src/redirect/ebpf/programs.ts';
import { settingsOf } from '../../../../src/redirect/ebpf/settings.ts';
import {
  inKernel,
  withMap,
  type BpfMap,
  type NativeModule,
} from '../../../../src/redirect/native/addon.ts';
import { readPrograms } from '../../../../src/redirect/native/native-files.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests, whyNoNode } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save', 'setpriv', 'unshare')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = defaultTarget;
const dial = `dial ${metadataIp} 80`;
const options = { skip: skip || whyNoNode() };

/** In order of `enum nmi_kind` in nmi.h. */
const kinds = ['no-record', 'no-room', 'shared', 'attested', 'direct'];

/**
 * Prints what it is and what its listening socket answers, then what each accepted socket answers. Sends that to
 * the client, too, whenever it sends anything.
 */
const agentScript = (addon: string, port: number) => `
  const loaded = { exports: {} };
  process.dlopen(loaded, '${addon}');
  const tell = ({ _handle: { fd } }) => {
    const found = loaded.exports.callerOf(fd);
    if (found === undefined) return 'no-answer';
    return ${JSON.stringify(kinds)}[found.kind] + ' ' + found.cgroupId;
  };
  const status = require('node:fs').readFileSync('/proc/self/status', 'utf8');
  const rights = ['Uid', 'CapEff', 'NoNewPrivs'].map((name) =>
    new RegExp('^' + name + ':\\\\s+(\\\\w+)', 'm').exec(status)[1]).join(' ');
  const server = require('node:net').createServer((socket) => {
    console.log(tell(socket));
    socket.on('error', () => undefined);
    socket.on('data', () => socket.write(tell(socket) + '\\n'));
  });
  server.listen(${port}, '${listenIp}', () => console.log(rights + ' listening ' + tell(server)));
  process.stdin.on('end', () => process.exit()).resume();
`;

/** Enters the cgroup before its namespace, like a container runtime. */
const enter = 'echo $$ > "$0/cgroup.procs" && exec unshare --cgroup "$@"';

interface Agent {
  line(): Promise<string>;
  stop(): Promise<void>;
}

describe('the caller of an accepted socket', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  let agentPod = '';
  let copy = '';
  let running: Agent | undefined;

  before(async () => {
    // Every user can read it, wherever this repository is.
    copy = mkdtempSync(join(tmpdir(), 'nmi-test-addon-'));
    chmodSync(copy, 0o755);
    cpSync(join(nativeFolder, 'nmi.node'), join(copy, 'nmi.node'));
    testBed = await EbpfTestBed.open();
    pod = testBed.client(testBed.podA, 'poda/c1');
    agentPod = testBed.tree.make('kubepods/burstable/podagent');
    await testBed.redirect({ ownCgroup: agentPod }).prepare();
    await testBed.redirect({ ownCgroup: agentPod }).install();
  });
  afterEach(() => running?.stop());
  after(async () => {
    await testBed.close();
    rmSync(copy, { recursive: true, force: true });
  });

  /** Starts an agent in a cgroup in place of the one before; returns what it prints once it listens. */
  async function startAgent(cgroup: string, port = listenPort): Promise<string> {
    await running?.stop();
    const script = agentScript(join(copy, 'nmi.node'), port);
    const words = [
      ...['nsenter', `--net=/run/netns/${testBed.node.name}`, '--', 'setpriv', '--reuid=65532'],
      ...['--regid=65532', '--clear-groups', '--bounding-set=-all', '--inh-caps=-all'],
      ...['--no-new-privs', '--', process.execPath, '-e', script],
    ];
    const child = spawn('sh', ['-c', enter, cgroup, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
    });
    const exited = once(child, 'exit');
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    running = {
      line: async () => String((await lines.next()).value),
      stop: async () => {
        child.kill('SIGKILL');
        await exited;
      },
    };
    return running.line();
  }

  const inAgentPod = (container: string) =>
    testBed.tree.make(`kubepods/burstable/podagent/${container}`);
  const listening = '65532 0000000000000000 1 listening no-record 0';
  const attestedAs = ({ podId }: Client) => new RegExp(`^attested ${podId} `);

  it('is answered to a process without any right that bpf(2) takes', async () => {
    assert.equal(await startAgent(inAgentPod('c1')), listening);
    assert.match(await pod.send(dial), attestedAs(pod));
    const disabled = readFileSync('/proc/sys/kernel/unprivileged_bpf_disabled', 'utf8');
    assert.notEqual(disabled.trim(), '0');
  });

  it('is answered to the next container of the pod, and to one that makes cgroups of its own', async () => {
    for (const container of ['c1', 'c2/made/by/itself']) {
      assert.equal(await startAgent(inAgentPod(container)), listening);
      assert.match(await pod.send(dial), attestedAs(pod));
    }
  });

  it('is a direct one at the agent’s own address, and none of what the programs do not see', async () => {
    const unseen = testBed.client(testBed.podB, '/system/unseen');
    await startAgent(inAgentPod('c1'));
    assert.match(
      await pod.send(`dial ${listenIp} ${listenPort}`),
      new RegExp(`^direct ${pod.podId} `),
    );
    assert.match(await unseen.send(dial), /^no-record 0 /);
    assert.match(await unseen.send(`dial ${listenIp} ${listenPort}`), /^no-record 0 /);
  });

  it('is found by its record until the connection closes', async () => {
    await startAgent(inAgentPod('c1'));
    assert.match(await pod.send(`keep ${metadataIp} 80`), attestedAs(pod));
    assert.match(await pod.send('ask'), attestedAs(pod));
    assert.equal(await pod.send('drop'), 'dropped');
  });

  it('is nobody where two sockets of the node share address and port', options, async () => {
    const host = testBed.client(testBed.node, 'podhost/c1');
    await startAgent(inAgentPod('c1'));
    assert.match(await host.send(dial), attestedAs(host));
    assert.match((await running?.line()) ?? '', /^attested/);
    const twins = `twins ${listenIp} 41210 ${metadataIp} 80 lo nmi0`;
    assert.equal(await host.send(`hold ${testBed.dialler.path} ${twins}`), 'dialled');
    assert.match((await running?.line()) ?? '', /^shared /);
    assert.equal(await host.send('release'), 'released');
  });

  it('is found where netfilter gave the connection another port than it has in its record', async () => {
    // Raw packets with the pod's address do the same, as far as netfilter can tell.
    const ip = '10.244.0.5';
    const unseen = testBed.client(testBed.podA, '/system/unseen');
    await startAgent(inAgentPod('c1'));
    const dialBoth = async (port: number, second: Client, to: string): Promise<string> => {
      assert.match(await unseen.send(`${dial} ${ip} ${port}`), /^no-record 0 /);
      return second.send(`dial ${to} ${ip} ${port}`);
    };
    for (const port of [41_300, 41_301]) {
      assert.match(await dialBoth(port, pod, `${metadataIp} 80`), attestedAs(pod));
    }
    const unrecorded = await dialBoth(41_302, unseen, `${listenIp} ${listenPort}`);
    assert.match(unrecorded, /^no-record 0 /);
    // Whichever port netfilter gives it has a record that was left behind.
    const all = Array.from({ length: 60_000 }, (_, at) => 1_024 + at);
    const ports = all.filter((port) => port !== 41_303);
    const keyOf = (port: number) => Uint8Array.of(10, 244, 0, 5, port & 255, port >> 8, 0, 0);
    const left = new Uint8Array(new BigUint64Array([7n, 7n, 3n, BigInt(listenPort)]).buffer);
    const inMap = (change: (native: NativeModule, map: BpfMap) => void) =>
      inKernel((native) =>
        withMap(native, join(testBed.pinFolder, 'callers'), 'write', (map) => change(native, map)),
      );
    inMap((native, map) => ports.forEach((port) => native.mapSet(map, keyOf(port), left)));
    assert.match(await dialBoth(41_303, pod, `${metadataIp} 80`), attestedAs(pod));
    inMap((native, map) => ports.forEach((port) => native.mapDelete(map, keyOf(port))));
  });

  it('is answered to two agents, each in its own pod, and to no other pod', async () => {
    const next = testBed.tree.make('kubepods/besteffort/podnext');
    const container = testBed.tree.make('kubepods/besteffort/podnext/c1');
    // The port is kept for agents.
    assert.match(await startAgent(container, listenPort + 2), / no-answer$/);
    const update = testBed.redirect({
      ownCgroup: next,
      otherAgents: () => [cgroupIdOf(agentPod) ?? 0n],
    });
    assert.deepEqual((await update.install()).problems, []);
    for (const cgroup of [inAgentPod('c1'), container]) {
      assert.equal(await startAgent(cgroup), listening);
      assert.match(await pod.send(dial), attestedAs(pod));
    }
    await testBed.redirect({ ownCgroup: agentPod }).install();
    assert.match(await startAgent(container, listenPort + 2), / no-answer$/);
  });

  it('is answered to an agent outside the cgroup of pods', async () => {
    const service = testBed.tree.make('system.slice/agent.service');
    const redirect = testBed.redirect({ ownCgroup: service });
    assert.deepEqual((await redirect.install()).problems, []);
    assert.equal(await startAgent(service), listening);
    assert.match(await pod.send(dial), attestedAs(pod));
    const other = testBed.tree.make('system.slice/other.service');
    assert.match(await startAgent(other), / no-answer$/);
    await testBed.redirect({ ownCgroup: agentPod }).install();
  });

  /** As a release whose maps have another layout does it. */
  function installOtherLayout(agent: string): void {
    const of = (path: string) => ({ path, id: cgroupIdOf(path) ?? 0n });
    const object = readPrograms();
    installPrograms({
      pinFolder: testBed.pinFolder,
      object,
      settings: settingsOf(object, defaultTarget, listenPort).fill(99, 0, 1),
      cgroup: of(join(testBed.tree.path, 'kubepods')),
      agent: of(agent),
      exempt: [cgroupIdOf(agentPod) ?? 0n],
    });
  }

  it('is never final for an agent whose maps another layout has left, nor just after', async () => {
    const unseen = testBed.client(testBed.podB, '/system/unseen');
    await startAgent(inAgentPod('c1'));
    assert.match(await pod.send(dial), attestedAs(pod));
    assert.match(await unseen.send(dial), /^no-record 0 /);
    installOtherLayout(testBed.tree.make('kubepods/burstable/podnewer'));
    assert.match(await pod.send(dial), /^no-room 0 /);
    await testBed.redirect({ ownCgroup: agentPod }).install();
    assert.match(await pod.send(dial), attestedAs(pod));
    assert.match(await unseen.send(dial), /^no-room 0 /);
  });

  it('is answered beside programs of another layout, and known once the redirect has this one', async () => {
    const redirect = { ownCgroup: testBed.tree.make('kubepods/burstable/podother') };
    installOtherLayout(agentPod);
    await testBed.redirect(redirect).prepare();
    const container = testBed.tree.make('kubepods/burstable/podother/c1');
    assert.equal(await startAgent(container), '65532 0000000000000000 1 listening no-room 0');
    assert.match(await pod.send(dial), /^no-room 0 /);
    await testBed.redirect(redirect).install();
    assert.match(await pod.send(dial), attestedAs(pod));
    await testBed.redirect({ ownCgroup: agentPod }).install();
  });
});
