/**
 * A node with two pods on a bridge, and the cloud behind it, which answers every client, so that
 * every leak is seen. Pods are network namespaces and cgroups, laid out like those of the kubelet.
 *
 *     pod a 10.244.0.5 ─┐
 *                       ├─ br0 10.244.0.1 node 10.0.0.4 ── 10.0.0.1 cloud 169.254.169.254
 *     pod b 10.244.0.6 ─┘
 */
import assert from 'node:assert/strict';
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { cgroupIdOf } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import {
  openEbpfRedirect,
  type EbpfRedirect,
  type EbpfRedirectOptions,
} from '../../../src/redirect/ebpf/ebpf.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import {
  buildDialler,
  openBpfFolder,
  openCgroupTree,
  type BpfFolder,
  type CgroupTree,
  type Dialler,
} from './cgroup-fixture.ts';
import { openNamespace, type Namespace, type Script } from './namespaces.ts';

const { metadataIp, listenIp, listenPort } = defaultTarget;
/** The kernel takes some milliseconds. */
const detachMs = 100;
const source = join(import.meta.dirname, '../../../src/redirect');

/** For each line it receives, sends its client's address, and what the programs answer about it now. */
const agentScript = (ip: string, port: number) => `
  process.stdin.resume();
  import('${source}/ebpf/callers.ts').then(({ attestSocket }) => {
    const tell = ({ kind, cgroupId = '-', retryWhy = '', isDirect, why = '' }) =>
      [kind, cgroupId, ...(isDirect ? ['directly'] : []), retryWhy || why].join(' ').trim();
    require('node:net').createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        const who = tell(attestSocket(socket._handle.fd));
        const name = 'agent sees ' + socket.remoteAddress + ' ' + who;
        if (String(data) === 'bye\\n') socket.end(name + '\\n', () => socket.destroy());
        else socket.write(name + '\\n');
      });
    }).listen(${port}, '${ip}', () => console.log('listening'));
  });
`;

/** TCP on ports 80 and 8080 and UDP on port 80 of the metadata address. */
const CLOUD = `
  process.stdin.resume();
  const net = require('node:net');
  const answer = (socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      const name = 'cloud sees ' + socket.remoteAddress + '\\n';
      if (String(data) === 'bye\\n') socket.end(name, () => socket.destroy());
      else socket.write(name);
    });
  };
  const udp = require('node:dgram').createSocket('udp4');
  udp.on('message', (_, peer) => udp.send('cloud sees ' + peer.address + '\\n', peer.port, peer.address));
  udp.bind(80, '${metadataIp}', () => {
    net.createServer(answer).listen(80, '${metadataIp}', () => {
      net.createServer(answer).listen(8080, '${metadataIp}', () => console.log('listening'));
    });
  });
`;

/**
 * Orders: "dial HOST PORT" (optionally from an address and a port) opens a connection, sends a
 * request and closes; "keep HOST PORT" leaves it open, "ask" uses it again, "drop" closes it;
 * "cling HOST PORT" opens one that the other side closes and this side does not; "storm" dials
 * about as fast as a pod may until "calm"; "flood N" opens N connections at once and counts the attested ones,
 * "ebb" closes them; "run PROGRAM ..." runs one; "hold PROGRAM ..." starts one and leaves it
 * running until "release". Each order is answered with one line.
 */
const CLIENT = `
  const net = require('node:net');
  let kept;
  const open = (host, port, localAddress, localPort) => {
    const from = localPort === undefined ? {} : { localPort: Number(localPort) };
    const socket = net.connect({ host, port: Number(port), localAddress, ...from });
    socket.setTimeout(15_000, () => socket.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })));
    socket.on('error', () => undefined);
    return socket;
  };
  const ask = (socket, done) => {
    if (socket.destroyed) return done('CLOSED');
    const onData = (data) => end(String(data).trim() + ' through ' + socket.localPort +
      ' to ' + socket.remoteAddress + ':' + socket.remotePort);
    const onError = (error) => end(error.code);
    const onClose = () => end('CLOSED');
    const end = (answer) => {
      socket.off('data', onData).off('error', onError).off('close', onClose);
      done(answer);
    };
    socket.on('data', onData).on('error', onError).on('close', onClose);
    socket.write('hello\\n');
  };
  let storm;
  let isCalm = false;
  let flood = [];
  let held;
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const [order, ...words] = line.split(' ');
    if (order === 'dial') {
      const socket = open(...words);
      ask(socket, (answer) => { socket.destroy(); console.log(answer); });
    } else if (order === 'keep') {
      kept = open(...words);
      ask(kept, console.log);
    } else if (order === 'cling') {
      const [host, port] = words;
      kept = net.connect({ host, port: Number(port), allowHalfOpen: true });
      kept.on('error', () => undefined).on('data', () => undefined).write('bye\\n');
      kept.on('end', () => console.log('left alone through ' + kept.localPort +
        ' to ' + kept.remoteAddress + ':' + kept.remotePort));
    } else if (order === 'ask') {
      ask(kept, console.log);
    } else if (order === 'drop') {
      kept.on('close', () => console.log('dropped'));
      kept.destroy();
    } else if (order === 'run') {
      const [program, ...args] = words;
      require('node:child_process').execFile(program, args, { timeout: 20000 },
        (error, stdout) => console.log(error === null ? stdout.trim() : 'failed: ' + error.message));
    } else if (order === 'hold') {
      const [program, ...args] = words;
      held = require('node:child_process').spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
      held.stdout.once('data', (data) => console.log(String(data).trim()));
    } else if (order === 'release') {
      const released = () => console.log('released');
      if (held.exitCode === null) held.once('exit', released).stdin.end();
      else released();
    } else if (order === 'flood') {
      const seen = {};
      flood = Array.from({ length: Number(words[0]) }, () => open('${metadataIp}', 80));
      let left = flood.length;
      for (const socket of flood) {
        ask(socket, (answer) => {
          const kind = /(un)?attested/.exec(answer)?.[0] ?? answer;
          seen[kind] = (seen[kind] ?? 0) + 1;
          left -= 1;
          if (left === 0) console.log(JSON.stringify(seen));
        });
      }
    } else if (order === 'ebb') {
      const living = flood.filter((socket) => !socket.destroyed);
      let left = living.length;
      if (left === 0) console.log('ebbed');
      for (const socket of living) {
        socket.on('close', () => { left -= 1; if (left === 0) console.log('ebbed'); });
        socket.resetAndDestroy();
      }
    } else if (order === 'storm') {
      storm = new Map();
      isCalm = false;
      let lanes = 4;
      const one = () => {
        if (isCalm) {
          lanes -= 1;
          if (lanes === 0) console.log(JSON.stringify(Object.fromEntries(storm)));
          return;
        }
        const socket = open('${metadataIp}', 80);
        ask(socket, (answer) => {
          socket.destroy();
          const kind = answer.split(' ')[0];
          storm.set(kind, (storm.get(kind) ?? 0) + 1);
          // Four lanes connect no faster than the programs let one pod connect.
          setTimeout(one, 4);
        });
      };
      for (let lane = 0; lane < 4; lane += 1) one();
      console.log('storming');
    } else if (order === 'calm') {
      isCalm = true;
    }
  });
`;

/** A process that executes commands, in some cgroup and namespace. */
export interface Client {
  readonly cgroup: string;
  /** Of its pod, which is the cgroup above a container's. */
  readonly podId: bigint;
  /** Sends one order; returns its one line of answer. */
  send(order: string): Promise<string>;
}

export class EbpfTestBed {
  readonly tree: CgroupTree;
  readonly bpf: BpfFolder;
  readonly dialler: Dialler;
  readonly node: Namespace;
  readonly podA: Namespace;
  readonly podB: Namespace;
  readonly cloud: Namespace;
  /** For every redirect opened here, unless overridden. */
  settings: Partial<EbpfRedirectOptions> = {};
  /** Cookie of the node's network namespace. */
  #netnsCookie = 0n;

  private constructor(spaces: readonly [Namespace, Namespace, Namespace, Namespace]) {
    [this.node, this.podA, this.podB, this.cloud] = spaces;
    this.tree = openCgroupTree();
    this.tree.make('kubepods/burstable');
    this.bpf = openBpfFolder();
    this.dialler = buildDialler();
  }

  static async open(): Promise<EbpfTestBed> {
    const testBed = new EbpfTestBed([
      await openNamespace(),
      await openNamespace(),
      await openNamespace(),
      await openNamespace(),
    ]);
    try {
      await testBed.#connect();
    } catch (error) {
      await testBed.close();
      throw error;
    }
    return testBed;
  }

  get pinFolder(): string {
    return join(this.bpf.path, 'nmi');
  }

  /** A service's, outside the cgroup of pods. */
  get agentCgroup(): string {
    return this.tree.make('system/agent');
  }

  redirect(more: Partial<EbpfRedirectOptions> = {}): EbpfRedirect {
    const { host } = this.node;
    return openEbpfRedirect({
      host,
      netnsCookie: this.#netnsCookie,
      cgroupRoot: this.tree.path,
      ownCgroup: this.agentCgroup,
      pinFolder: this.pinFolder,
      fallback: openIptablesRedirect({ host, backend: 'nft', isBehind: true }),
      ...this.settings,
      ...more,
    });
  }

  /**
   * A process in a cgroup below `kubepods/burstable`; a name that begins with `/` is from the top.
   */
  client(space: Namespace, cgroupName: string): Client {
    const name = cgroupName.startsWith('/') ? cgroupName : `kubepods/burstable/${cgroupName}`;
    const cgroup = this.tree.make(name);
    const script = space.start(CLIENT, cgroup);
    const [pod = cgroup] = /^.*?\/pod[^/]+/.exec(cgroup) ?? [];
    const podId = cgroupIdOf(pod);
    assert.ok(podId !== undefined);
    return {
      cgroup,
      podId,
      send: async (order) => {
        script.say(order);
        return script.line();
      },
    };
  }

  /** Starts the agent; the address must be up, and the map must exist. */
  async startAgent(ip = listenIp, port = listenPort): Promise<Script> {
    const agent = this.node.start(agentScript(ip, port), this.agentCgroup);
    assert.equal(await agent.line(), 'listening');
    return agent;
  }

  /** Unlinks what attaches these programs, and waits until the kernel has detached them. */
  async detach(...hooks: readonly string[]): Promise<void> {
    for (const hook of hooks) unlinkSync(join(this.pinFolder, `link_${hook}`));
    await setTimeout(detachMs);
  }

  async startCloud(): Promise<void> {
    const cloud = this.cloud.start(CLOUD);
    assert.equal(await cloud.line(), 'listening');
  }

  async #connect(): Promise<void> {
    const { node, podA, podB, cloud } = this;
    this.#netnsCookie = BigInt(await node.run(`${this.dialler.path} namespace`));
    await node.run('tee /proc/sys/net/ipv4/ip_forward', '1');
    const lines = async (namespace: Namespace, all: readonly string[]) => {
      for (const line of all) await namespace.run(line);
    };
    await lines(node, [
      'ip link add br0 type bridge',
      'ip addr add 10.244.0.1/24 dev br0',
      'ip link set br0 up',
      `ip link add poda type veth peer name eth0 netns ${podA.name}`,
      `ip link add podb type veth peer name eth0 netns ${podB.name}`,
      `ip link add up0 type veth peer name eth0 netns ${cloud.name}`,
      'ip link set poda master br0 up',
      'ip link set podb master br0 up',
      'ip addr add 10.0.0.4/24 dev up0',
      'ip link set up0 up',
      'ip route add default via 10.0.0.1',
    ]);
    for (const [pod, ip] of [
      [podA, '10.244.0.5'],
      [podB, '10.244.0.6'],
    ] as const) {
      await lines(pod, [
        `ip addr add ${ip}/24 dev eth0`,
        'ip link set eth0 up',
        'ip route add default via 10.244.0.1',
      ]);
    }
    await lines(cloud, [
      'ip addr add 10.0.0.1/24 dev eth0',
      `ip addr add ${metadataIp}/32 dev lo`,
      'ip link set eth0 up',
      'ip route add 10.244.0.0/24 via 10.0.0.4',
    ]);
  }

  async close(): Promise<void> {
    this.bpf.close();
    this.dialler.close();
    const all = [this.podA, this.podB, this.node, this.cloud];
    await Promise.all(all.map((namespace) => namespace[Symbol.asyncDispose]()));
    this.tree.close();
  }
}
