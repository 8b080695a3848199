/** The kernel's side: which objects are ours, and which connection is whose. */
import type { Faults } from '../mutation.ts';

export const redirect: Faults = {
  'src/redirect/target.ts': [
    ['a target is of IPv6', 'if (!isIPv4(ip)) throw', 'if (false) throw'],
    ['a port is 0', 'port < 1 || ', ''],
  ],
  'src/redirect/cgroup/cgroup.ts': [
    [
      'a pod within a pod is taken for its name',
      "isQosClass(segments[0] ?? '') ? 1 : 0",
      'segments.length - 2',
    ],
    ['any text is the uid of a pod', 'if (!POD_UID.test(podUid)) return [];', ''],
    ['a name is that of a pod by its end', '/^pod([0-9a-z]', '/pod([0-9a-z]'],
  ],
  'src/redirect/cgroup/cgroup-index.ts': [
    [
      'a cgroup of another pod is this one’s',
      'if (pod?.podUid === podUid) return pod;',
      'if (pod !== undefined) return pod;',
    ],
    [
      'a caller makes the agent search without end',
      'if (searchedAtMs !== undefined && this.#nowMs() - searchedAtMs < missPauseMs) return;',
      '',
    ],
    ['each cgroup of a pod has it searched', 'if (found.length > many)', 'if (false)'],
    ['cgroups are kept without end', 'dropOldest(this.#found, this.#maxEntries);', ''],
  ],
  'src/redirect/cgroup/cgroup-tree.ts': [
    ['a pod is taken for a QoS class', '.filter(({ path }) => isQosClass(basename(path)))', ''],
    ['a pod makes any number of cgroups', 'if (found.length === MAX_CGROUPS) return found;', ''],
    ['a pod makes cgroups of any depth', 'depth <= MAX_DEPTH', 'depth <= 1e9'],
    [
      'a cgroup below an exempt one is redirected',
      'level = level.filter(({ id }) => !except.includes(id));',
      '',
    ],
    [
      'the part of a container is taken for the whole tree',
      'mounts.find(({ path }) => cgroupIdOf(path) === ROOT_CGROUP_ID) ?? mounts[0]',
      'mounts[0]',
    ],
    [
      'a folder beside is taken for one below',
      "named.endsWith('/') ? named : `${named}/`",
      'named',
    ],
  ],
  'src/redirect/ebpf/callers.ts': [
    [
      'a record of another connection attests',
      'plainIp(peer.localIp) !== listenIp || peer.localPort !== listenPort',
      'false',
    ],
    [
      'a record of another namespace attests a process of the node',
      'const isWithinNode = this.#knowsNode && ip === plainIp(peer.localIp);',
      'const isWithinNode = false;',
    ],
    [
      'a node that is a container has no callers of its own on Linux 5.10',
      'this.#knowsNode = native.netnsCookie() !== 0n;',
      'this.#knowsNode = true;',
    ],
    [
      'one of two sockets is taken for the other',
      'if (caller?.cgroupId === 0n) return SHARED;',
      '',
    ],
    [
      'who found no room is refused for good',
      'this.#wasRoomShort() ? NO_ROOM : UNATTESTED',
      'UNATTESTED',
    ],
    [
      'who never had a record is to try again for ever',
      'this.#nowNs() - counters.unfiledAtNs < RECENT_NS',
      'true',
    ],
    ['a map that is gone is looked into', 'this.#map = undefined;\n    try {', 'try {'],
    ['former maps stay open', 'if (former !== undefined) native.close(former);', ''],
    [
      'a look-up that fails ends the agent',
      '} catch {\n      return UNAVAILABLE;\n    }',
      '} finally {\n      void 0;\n    }',
    ],
  ],
  'src/redirect/ebpf/exempt-cgroups.ts': [
    ['a cgroup stays exempt', 'for (const id of others) native.mapDelete(map, encodeId(id));', ''],
    [
      'the agent’s own calls come back to it',
      'if (!present.includes(id)) native.mapSet(map, encodeId(id), PRESENT);',
      'void 0;',
    ],
    [
      'a second process takes the exemption of the first away',
      'for (const id of ids) native.mapSet(map, encodeId(id), PRESENT);',
      'for (const id of native.mapKeys(map)) native.mapDelete(map, id);\n    for (const id of ids) native.mapSet(map, encodeId(id), PRESENT);',
    ],
  ],
  'src/redirect/ebpf/pins.ts': [
    [
      'a folder that is full is mounted over',
      'readdirSync(path).length === 0 ? undefined',
      'true ? undefined',
    ],
    [
      'a pin of somebody else is removed with the folder',
      "if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw fileError(error);",
      'throw fileError(error);',
    ],
  ],
  'src/redirect/ebpf/programs.ts': [
    [
      'files of an ordinary folder are taken for pins',
      'names.length > 0 && isBpffs(pinFolder) ? names : []',
      'names',
    ],
    [
      'a pin of somebody else is taken away',
      'listPins(pinFolder).filter(isOurs)',
      'listPins(pinFolder)',
    ],
    [
      'maps of another layout are shared',
      'for (const name of SHARED_MAPS) unpin(wanted.pinFolder, name);',
      '',
    ],
    ['what a crash left stays', "if (name.startsWith('next_')) unpin(pinFolder, name);", ''],
    [
      'a link to another cgroup is right',
      'if (link.cgroupId !== wanted.cgroup.id) {',
      'if (false) {',
    ],
    [
      'a program of somebody else is right',
      'if (program?.id !== link.programId) return',
      'if (program === undefined) return',
    ],
    [
      'sockets of the node are closed',
      'const meant = users.filter((id) => redirected.has(id));',
      'const meant = users;',
    ],
    ['programs stay open', 'native.close(programs);', ''],
  ],
  'src/redirect/ebpf/settings.ts': [
    [
      'ports are in the order of the machine',
      'view.setUint16(14, target.listenPort);',
      'view.setUint16(14, target.listenPort, true);',
    ],
    [
      'one pod takes all records',
      'view.setUint32(16, MAX_CALLERS_PER_POD, true);',
      'view.setUint32(16, 10 * MAX_CALLERS_PER_POD, true);',
    ],
    [
      'programs that know other pods as the node’s are right',
      'if (describeNode(present.node) !== describeNode(wanted.node)) {',
      'if (false) {',
    ],
    [
      'programs that redirect something else are right',
      'if (describeTarget(present.target) !== describeTarget(wanted.target)) {',
      'if (false) {',
    ],
  ],
  'src/redirect/ebpf/stale-programs.ts': [
    ['an agent by iptables cannot listen', 'await releasePlace(pinFolder);', ''],
    [
      'a node is open for a moment',
      " || status.state !== 'active') return withFound",
      ') return withFound',
    ],
    [
      'programs stay behind when they are removed',
      "if (lookFor(pinFolder).kind === 'pinned') unpinPrograms(pinFolder);",
      '',
    ],
    ['the address mode starts beside programs', "if (found.kind !== 'pinned') return;", 'return;'],
    ['programs are not reported', 'return withProblem(status, found.problem);', 'return status;'],
  ],
  'src/redirect/host/collect-errors.ts': [
    [
      'what follows a failure is not done',
      'errors.push(error);\n        return undefined;',
      'throw error;',
    ],
    ['a failure is hidden', 'if (errors.length > 0) throw errors[0];', ''],
  ],
  'src/redirect/host/mutex.ts': [
    [
      'two operations run at once',
      'const result = last.then(work, work);',
      'const result = work();',
    ],
  ],
  'src/redirect/host/command.ts': [
    [
      'a tool gets the secrets of the environment',
      'if (value !== undefined) result[name] = value;\n  }',
      'if (value !== undefined) result[name] = value;\n  }\n  Object.assign(result, env);',
    ],
    ['a tool hangs for ever', 'timeout: options.timeoutMs,', ''],
  ],
  'src/redirect/host/flows.ts': [
    ['the node’s own flows are cut', 'sparedSources: [...nodeIps],', 'sparedSources: [],'],
    [
      'flows of the agent are cut at each installation',
      "answeredBy: extent === 'all' ? undefined : ",
      'answeredBy: true ? undefined : ',
    ],
    [
      'flows that lead past the agent are spared',
      "answeredBy: extent === 'all' ? undefined : ",
      'answeredBy: ',
    ],
    ['a bug is taken for an old kernel', 'if (!(error instanceof RedirectError)) throw error;', ''],
  ],
  'src/redirect/host/guard.ts': [
    [
      'the barrier cuts the node itself',
      'const CLOSING: readonly GuardRule[] = [LANDING, BYPASS, BARRIER];',
      'const CLOSING: readonly GuardRule[] = [BARRIER, LANDING, BYPASS];',
    ],
    [
      'a barrier is added without the bypass',
      "if (failure?.code === 'UNSUPPORTED') return changes;",
      "if (failure?.code === 'UNSUPPORTED') continue;",
    ],
    [
      'a rule of somebody else is ours',
      'if (OTHER_SELECTORS.some((name) => name in entry)) return undefined;',
      '',
    ],
    [
      'a rule for packets to an address is the one for packets from it',
      'other.by === rule.by &&\n',
      '',
    ],
    ['a rule to another address is the guard', 'other.address === metadataIp &&\n', ''],
    [
      'the way round goes before the barrier',
      'for (const rule of ALL.toReversed()) {',
      'for (const rule of ALL) {',
    ],
  ],
  'src/redirect/host/link.ts': [
    [
      'a bridge with ports is deleted',
      ' && !links.some((other) => other.master === link.name)',
      '',
    ],
    ['a link of any kind is deleted', 'OWN_KINDS.includes(link.kind) && ', ''],
    [
      'a link is deleted that is not ours by its address',
      ' || !own.ipv4.includes(ip)) return;',
      ') return;',
    ],
    [
      'our address is the source of the node’s traffic',
      "'dev', LINK, 'scope', 'host'",
      "'dev', LINK",
    ],
    [
      'a bridge is made where nothing may be',
      "if (!(error instanceof RedirectError) || error.code !== 'UNSUPPORTED') throw error;",
      '',
    ],
    ['a link that is down is right', 'if (!own.up) problems.push(', 'if (false) problems.push('],
  ],
  'src/redirect/iptables/backend.ts': [
    [
      'rules are written where the kubelet is not',
      "if (KUBELET_CHAIN.test(legacyNat ?? '')) return LEGACY;",
      '',
    ],
    [
      'asking for a table of legacy iptables makes it',
      'return !tables.includes(table);',
      'return false;',
    ],
    [
      'a lock is taken for a missing backend',
      'if (isUnavailable(failure)) return undefined;\n  throw failure;',
      'return undefined;',
    ],
    [
      'the backend of the kubelet is left',
      "if (KUBELET_CHAIN.test((await probeTable(host, NFT, table)) ?? '')) return undefined;",
      '',
    ],
    [
      'a backend that somebody chose is left',
      "if (choice !== 'auto' || refused !== NFT) return undefined;",
      '',
    ],
  ],
  'src/redirect/iptables/iptables.ts': [
    [
      'rules of ours stay in the other backend',
      'for (const other of otherBackends(backend)) {',
      'for (const other of otherBackends(backend).slice(1)) {',
    ],
    [
      'older flows are not cut',
      "const outcome = await cutFlows(settings, 'passed-by');",
      "const outcome = { kind: 'skipped', note: '' } as const;",
    ],
    [
      'the guard stays where it is off',
      'settings.guard ? ensureGuard(host, metadataIp) : removeGuard(host, metadataIp)',
      'ensureGuard(host, metadataIp)',
    ],
    ['a transaction is tried for ever', 'if (count === MAX_TRANSACTIONS) break;', ''],
    [
      'a node stays closed after a removal that failed in part',
      'await errors.run(() => removeLink(host, target.listenIp));\n  errors.throwFirst();',
      'errors.throwFirst();\n  await removeLink(host, target.listenIp);',
    ],
  ],
  'src/redirect/iptables/rules.ts': [
    [
      'a rule of somebody else before the jump is not noticed',
      "if (line.startsWith('-A PREROUTING ')) position += 1;",
      '',
    ],
  ],
  'src/redirect/verifier-log.ts': [
    ['statistics are taken for the reason', '!STATISTICS.test(line) && ', ''],
  ],
  'src/nmi/kernel/choose-redirect.ts': [
    [
      'eBPF is chosen where the kernel refuses it',
      'if (features.length > 0) return',
      'if (false) return',
    ],
    [
      'eBPF is chosen where nothing can be pinned',
      'if (obstacle !== undefined) return obstacle.why;',
      '',
    ],
  ],
  'src/nmi/kernel/external-redirect.ts': [
    [
      'an address is waited for without end',
      'if (performance.now() > deadlineMs) {',
      'if (false) {',
    ],
  ],
  'src/nmi/kernel/listener-notes.ts': [
    [
      'any socket is listened on',
      'return ip === address.ip && port === address.port;',
      'return true;',
    ],
  ],
  'src/nmi/kernel/listener-holder.ts': [
    ['pods wait for ever where no agent is', 'this.#drop();\n    });', '});'],
    [
      'anybody takes the socket over',
      'uid === process.geteuid?.() && (mode & 0o022) === 0',
      'true',
    ],
  ],
  'src/nmi/kernel/kernel.ts': [
    [
      'a redirect that is not there is up',
      'value: keeper.problem() === undefined ? 1 : 0',
      'value: 1',
    ],
  ],
  'src/nmi/kernel/settling.ts': [
    [
      'a connection of the first seconds is refused for good',
      'activeForMs < settlingMs ? settling',
      'false ? settling',
    ],
    ['a caller without a record retries for ever', ' && activeForMs < settlingMs', ''],
    [
      'a caller with a record is refused in the first seconds',
      "attestation.kind === 'unattested' && ",
      '',
    ],
  ],
  'src/nmi/kernel/room-shortage.ts': [
    ['each look is logged', 'if (refusedConnects + unrecordedConnections === 0) return;', ''],
    ['what was refused once is logged for ever', 'before = now;', ''],
  ],
  'src/nmi/kernel/kubenet.ts': [
    [
      'a kubenet node is not known',
      "if (text.includes('--network-plugin=kubenet')) {",
      'if (false) {',
    ],
  ],
  'src/nmi/kernel/reconciler.ts': [
    ['two agents repair one redirect', 'if (this.#isPaused) return this.#options.intervalMs;', ''],
    ['a failure is tried again in a loop', 'firstRetryMs * 2 ** (this.#failures - 1)', '0'],
    ['a check goes on after the end', 'if (this.#isDisposed) return;\n    this.#job', 'this.#job'],
  ],
  'src/redirect/address.ts': [
    [
      'the address of a real service is taken',
      'if (await isAnswered(metadataIp, metadataPort)) {',
      'if (false) {',
    ],
    [
      'another redirect that was left behind is passed over',
      'if (left !== undefined) throw',
      'if (false) throw',
    ],
    [
      'an agent after another finds its own address taken',
      'if (!nodeAddresses(links).has(metadataIp)) {',
      'if (true) {',
    ],
  ],
  'src/redirect/ebpf/probe.ts': [
    [
      'a moment without memory is a kernel without eBPF',
      'const MAX_ASKED = 3;',
      'const MAX_ASKED = 1;',
    ],
    [
      'a kernel that would not say is taken for one that lacks it',
      'if (answer > 0) {',
      'if (answer !== 0) {',
    ],
    [
      'one missing part goes unnoticed',
      "if (findings.some(({ support }) => support === 'unsupported')) return 'unsupported';",
      '',
    ],
  ],
  'src/redirect/host/boot-guard.ts': [
    ['the guard is written and never started', "symlinkSync(join('..', unit), link);", ''],
    [
      'a guard for another address is taken for ours',
      "readFileSync(join(folder, unit), 'utf8') === renderBootGuard(metadataIp) &&",
      '',
    ],
    [
      'a missing guard is no problem',
      "const state = status.state === 'active' ? 'broken' : status.state;",
      'const { state } = status;',
    ],
    [
      'the guard stays after the redirect is removed',
      'rmSync(join(folder, unit), { force: true });',
      '',
    ],
  ],
  'src/nmi/kernel/caller-client.ts': [
    [
      'an answer of another kind is taken',
      'if (answer === undefined || answer.kind !== asked?.kind) {',
      'if (answer === undefined || asked === undefined) {',
    ],
    [
      'requests wait without bound',
      'if (this.#pending.length >= maxPending) return Promise.resolve(undefined);',
      '',
    ],
    ['a process that does not answer is waited for', 'else this.#socket?.destroy();', ''],
    [
      'a request on a lost connection never ends',
      'for (const { settle } of pending) settle(undefined);',
      '',
    ],
    [
      'a lost connection is not made again',
      'this.#disarm = this.#options.clock.schedule(reconnectMs, () => void this.report());',
      '',
    ],
    [
      'the bytes of an earlier request are sent with the next',
      'this.#due.fill(0, this.#dueBytes, this.#dueBytes + requestBytes);',
      '',
    ],
    [
      'the process’s old report holds after it is gone',
      'this.#options.onReport(undefined);\n    if (this.#isClosed)',
      'if (this.#isClosed)',
    ],
  ],
  'src/nmi/kernel/unrecorded-callers.ts': [
    [
      'a caller on a link of many is known by it',
      'return network.ownsLink(remoteIp)',
      'return true',
    ],
    [
      'the option to refuse has no effect',
      "if (policy === 'refuse') return {",
      'if (false) return {',
    ],
    [
      'a proxy of another pod is served on a link of many',
      'network.ownsLink(remoteIp) ? network.placeOf(remoteIp)',
      'true ? network.placeOf(remoteIp)',
    ],
    ['any record of another pod is overruled', 'attestation.isDirect !== true || ', ''],
  ],
  'src/nmi/kernel/caller-frames.ts': [
    ['half a frame is lost', 'this.#rest = Buffer.from(bytes.subarray(whole));', ''],
    [
      'ports are in the order of the machine',
      'bytes.writeUInt16BE(request.port, at + 2);',
      'bytes.writeUInt16LE(request.port, at + 2);',
    ],
    [
      'a cgroup loses its upper half',
      'bytes.readBigUInt64LE(at + 8)',
      'BigInt(bytes.readUInt32LE(at + 8))',
    ],
    [
      'a redirect that is down is reported active',
      'bytes[at + 2] = isActive ? 1 : 0;',
      'bytes[at + 2] = 1;',
    ],
    [
      'unknown outcomes are taken for an answer',
      'if (outcome === undefined) return undefined;',
      '',
    ],
  ],
  'src/nmi/kernel/caller-server.ts': [
    ['any number of clients hold connections', 'server.maxConnections = maxClients;', ''],
    [
      'a client that does not read takes memory',
      'if (socket.writableLength > maxUnreadBytes) socket.destroy();',
      '',
    ],
    [
      'bytes that are no request are answered',
      'if (request === undefined) {\n        socket.destroy();\n        return;\n      }',
      'if (request === undefined) continue;',
    ],
  ],
  'src/nmi/kernel/local-socket.ts': [
    [
      'a socket that another process answers is taken',
      "if (await isAnswered(path)) return 'another process answers there';",
      '',
    ],
    [
      'a file that is no socket is deleted',
      "if (!(await lstat(path)).isSocket()) return 'something that is no socket is there';",
      '',
    ],
    [
      'a socket is open to others for a moment',
      'process.umask(0o777 & ~mode)',
      'process.umask(0o022)',
    ],
    [
      'the whole process keeps the mask',
      '} finally {\n    process.umask(umask);\n  }',
      '} finally {\n    void umask;\n  }',
    ],
  ],
};
