import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  closeSync,
  existsSync,
  mkdtempDisposableSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { connect, createServer } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, beforeEach, describe, it, mock } from 'node:test';
import { freePort } from '../../../lab/fabric/free-ports.ts';
import { OwnTime } from '../../../lab/pods/own-time.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { freshNative, nativeFolder } from '../../../scripts/native.ts';
import {
  asRedirectError,
  isMissing,
  kernelAccountOf,
  nativeModule,
  withMap,
  type NativeModule,
} from '../../../src/redirect/native/addon.ts';
import { cutFlows, cutSockets } from '../../../src/redirect/native/connections.ts';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';
import {
  attribute,
  findAttribute,
  hostNumbers,
  nest,
  Netlink,
} from '../../../src/redirect/native/netlink.ts';
import { placeOf } from '../../../src/redirect/native/place.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';

function failure(fields: object): Error {
  return Object.assign(new Error('No such file or directory'), fields);
}

describe('an error of a call of the native module', () => {
  it('is translated if the native module reports it, and returned unchanged otherwise', () => {
    const fields = { code: 'ENOENT', step: 'open pin' };
    const translated = asRedirectError(failure(fields));
    assert.ok(translated instanceof RedirectError);
    assert.deepEqual([translated.code, translated.step], ['BUSY', 'open pin']);
    assert.equal(isMissing(failure(fields)), true);
    // As an error of the file system has it, which has no step.
    const others = Object.keys(fields).map((name) => failure({ ...fields, [name]: undefined }));
    const { step, ...ofFileSystem } = fields;
    // Of a pin: it has its code, and a caller that may retry knows it by that.
    const busy = new RedirectError('BUSY', step, 'another process installs');
    for (const other of [failure(ofFileSystem), ...others, { ...fields, message: step }, busy]) {
      assert.equal(asRedirectError(other), other);
      assert.equal(isMissing(other), false);
    }
  });

  it('has a code by what a retry or another user could change', () => {
    for (const [code, step, expected] of [
      ['EPERM', 'load', 'NOT_PERMITTED'],
      ['EACCES', 'load', 'UNSUPPORTED'],
      ['EACCES', 'open pin', 'NOT_PERMITTED'],
      ['ENOENT', 'list sockets', 'UNSUPPORTED'],
      ['EOPNOTSUPP', 'attach', 'UNSUPPORTED'],
      ['EINVAL', 'attach', 'UNSUPPORTED'],
      ['EINVAL', 'open pin', 'KERNEL_REFUSED'],
      ['EAGAIN', 'list flows', 'BUSY'],
      ['ETIMEDOUT', 'list flows', 'TIMEOUT'],
      ['ENOMEM', 'load', 'KERNEL_REFUSED'],
    ] as const) {
      const translated = asRedirectError(failure({ code, step }));
      assert.equal(translated instanceof RedirectError && translated.code, expected, code + step);
    }
  });

  it('keeps the kernel’s full log', () => {
    const refused = failure({ code: 'EACCES', step: 'load', detail: 'the log' });
    assert.equal(kernelAccountOf(refused), 'the log');
    assert.equal(kernelAccountOf(asRedirectError(refused)), 'the log');
    assert.equal(kernelAccountOf(new Error('another')), undefined);
  });
});

describe('a map', () => {
  it('is open while it is used, for reading only unless it is written', () => {
    const opened: unknown[] = [];
    let map = -1;
    const native = {
      openPin: (pin: string, readOnly: boolean) => {
        opened.push([pin, readOnly]);
        return (map = openSync('/dev/null', 'r'));
      },
    } as unknown as NativeModule;
    const isOpen = () => existsSync(`/proc/self/fd/${map}`);
    assert.equal(withMap(native, '/pin', 'read', isOpen), true);
    assert.equal(isOpen(), false);
    const failing = () => {
      throw new RangeError('no');
    };
    assert.throws(() => withMap(native, '/pin', 'write', failing), /no/);
    assert.equal(isOpen(), false);
    assert.deepEqual(opened, [
      ['/pin', true],
      ['/pin', false],
    ]);
  });
});

describe('netlink', () => {
  const { EAGAIN, EINTR, ENOBUFS, ENOENT, EPERM, EPROTO, ETIMEDOUT } = constants.errno;
  const request = { type: 26, extent: 'one', fixed: new Uint8Array(12) } as const;

  function message(type: number, payload: Uint8Array, flags = 0): Uint8Array {
    const header = hostNumbers(Uint32Array, 16 + payload.length, 0, 0, 0);
    header.set(hostNumbers(Uint16Array, type, flags), 4);
    return Buffer.concat([header, payload]);
  }

  const endWith = (errno: number) => message(2, hostNumbers(Uint32Array, 2 ** 32 - errno));
  const ok = message(2, hostNumbers(Uint32Array, 0));
  const done = message(3, new Uint8Array(4));

  let answers: (Uint8Array | number)[] = [];
  let closed = 0;
  const open = () => 77;

  beforeEach(() => {
    [answers, closed] = [[], 0];
    mock.method(fs, 'writeSync', () => 0);
    mock.method(fs, 'closeSync', () => (closed += 1));
    mock.method(fs, 'readSync', (_: number, into: Uint8Array) => {
      const next = answers.shift() ?? assert.fail('it waits without end');
      if (typeof next === 'number') throw Object.assign(new Error('read'), { errno: -next });
      into.set(next);
      return next.length;
    });
    syncBuiltinESMExports();
  });
  afterEach(() => {
    mock.restoreAll();
    syncBuiltinESMExports();
  });

  const ask = (...given: (Uint8Array | number)[]) => {
    answers = given;
    const seen: number[] = [];
    using netlink = new Netlink(open, 0);
    return [netlink.ask(request, ({ byteLength }) => seen.push(byteLength)), seen];
  };
  const object = message(24, new Uint8Array(12));

  const cases: readonly [string, (Uint8Array | number)[], number, number[]][] = [
    ['an object and its end', [object, ok], 0, [12]],
    ['objects in one answer', [Buffer.concat([object, object, done])], 0, [12, 12]],
    ['an end without an error', [message(3, new Uint8Array())], 0, []],
    ['a refusal', [endWith(EPERM)], EPERM, []],
    ['a refusal at the end', [object, message(3, endWith(ENOENT).subarray(16))], ENOENT, [12]],
    ['an interrupted call', [EINTR, ok], 0, []],
    ['silence', [EAGAIN], ETIMEDOUT, []],
    ['a full buffer', [ENOBUFS], ENOBUFS, []],
    ['a list that changed meanwhile', [message(24, new Uint8Array(12), 0x10)], EAGAIN, []],
    ['an empty answer', [new Uint8Array()], EPROTO, []],
    ['a cut header', [object.subarray(0, 10)], EPROTO, []],
    ['a cut object', [object.subarray(0, 20)], EPROTO, []],
    ['a length below that of a header', [new Uint8Array(16)], EPROTO, []],
    ['a refusal without a number', [message(2, new Uint8Array(2))], EPROTO, []],
  ];
  for (const [name, given, errno, sizes] of cases) {
    it(`reads ${name}`, () => {
      assert.deepEqual(ask(...given), [errno, sizes]);
      assert.deepEqual([answers, closed], [[], 1]);
    });
  }

  it('reads no more than a limit', () => {
    const full = message(24, new Uint8Array(64 * 1024 - 16));
    assert.deepEqual(ask(...Array.from({ length: 8192 }, () => full))[0], constants.errno.EMSGSIZE);
  });

  it('finds attributes by their types, and none in damaged ones', () => {
    const find = (bytes: Uint8Array, ...types: [number, ...number[]]) =>
      findAttribute(new DataView(Uint8Array.from(bytes).buffer), 0, ...types)?.byteLength;
    const inner = nest(5, attribute(1, new Uint8Array(3)), attribute(2, new Uint8Array(7)));
    const all = Buffer.concat([attribute(4, new Uint8Array(1)), inner]);
    assert.deepEqual([find(all, 4), find(all, 5, 1), find(all, 5, 2)], [1, 3, 7]);
    assert.deepEqual([find(all, 6), find(all, 5, 3), find(all, 4, 1)], Array(3).fill(undefined));
    assert.equal(find(all.subarray(0, 20), 5), undefined, 'longer than its message');
    assert.equal(find(new Uint8Array(32), 5), undefined, 'without a length');
  });

  it('has no place for damaged answers', () => {
    answers = [message(24, new Uint8Array(4)), ok];
    assert.equal(placeOf(open, '10.0.0.5'), undefined);
    assert.equal(closed, 1);
  });

  it('reports which step the kernel refused', () => {
    const dialled = { ip: '169.254.169.254', port: 80 };
    const calls: readonly [() => number, string][] = [
      [() => cutFlows(open, { dialled, sparedSources: [] }), 'list flows'],
      [() => cutSockets(open, dialled, [1n]), 'list sockets'],
    ];
    for (const [call, step] of calls) {
      answers = [endWith(EPERM)];
      assert.throws(call, { code: 'EPERM', step });
    }
    assert.equal(closed, 2);
  });

  it('closes the sockets of its cgroups, and counts none that has ended', () => {
    const dialled = { ip: '169.254.169.254', port: 80 };
    const socket = (cgroup: number, port: number) => {
      const fixed = new Uint8Array(72);
      fixed.set([0, port], 6);
      fixed.set([169, 254, 169, 254], 24);
      const id = attribute(21, hostNumbers(Uint32Array, cgroup, 0));
      return message(20, Buffer.concat([fixed, id]));
    };
    const listed = [socket(7, 80), socket(7, 80), socket(7, 81), socket(8, 80)];
    answers = [Buffer.concat(listed), done, done, ok, endWith(ENOENT)];
    assert.equal(cutSockets(open, dialled, [7n]), 1);
    assert.deepEqual(answers, []);
    answers = [Buffer.concat(listed), done, done, endWith(EPERM)];
    const refusal = { code: 'EPERM', step: 'close socket' };
    assert.throws(() => cutSockets(open, dialled, [7n]), refusal);
  });
});

describe('two agents of a node', () => {
  freshNative();
  const native = nativeModule();
  const source = join(import.meta.dirname, '../../../src/redirect/native/addon.ts');

  describe('a locked file', () => {
    let folder = '';
    before(() => {
      folder = mkdtempSync(join(tmpdir(), 'nmi-native-slots-'));
    });
    after(() => rmSync(folder, { recursive: true }));

    it('has one holder until its descriptor is closed, and no other descriptor releases it', () => {
      const path = join(folder, 'one');
      assert.equal(native.isLocked(path), false);
      const lock = native.lockFile(path);
      assert.ok(lock !== undefined);
      for (let round = 0; round < 3; round++) {
        assert.deepEqual([native.lockFile(path), native.isLocked(path)], [undefined, true]);
      }
      assert.equal(statSync(path).mode & 0o777, 0o600);
      closeSync(lock);
      assert.equal(native.isLocked(path), false);
      closeSync(native.lockFile(path) ?? assert.fail());
    });

    it('is released when its holder is killed, though a child of it runs on', async (t) => {
      const path = join(folder, 'two');
      const script = `import(${JSON.stringify(source)}).then(({ nativeModule }) => {
      nativeModule().lockFile(${JSON.stringify(path)});
      const child = require('node:child_process').spawn('sleep', ['60'], { stdio: 'ignore' });
      console.log(child.pid);
    });
    setInterval(() => undefined, 1e6);`;
      const holder = spawn(process.execPath, ['-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [pid] = (await once(holder.stdout, 'data')) as [Buffer];
      const child = Number(pid.toString());
      t.after(() => process.kill(child, 'SIGKILL'));
      assert.deepEqual([native.isLocked(path), native.lockFile(path)], [true, undefined]);
      holder.kill('SIGKILL');
      await once(holder, 'exit');
      process.kill(child, 0);
      assert.equal(native.isLocked(path), false);
    });

    it('is not behind a link, nor where there is no folder', () => {
      const target = join(folder, 'target');
      symlinkSync(target, join(folder, 'link'));
      for (const [path, code] of [
        [join(folder, 'link'), 'ELOOP'],
        [join(folder, 'none', 'x'), 'ENOENT'],
        [folder, 'EISDIR'],
      ] as const) {
        assert.throws(() => native.lockFile(path), { code, step: 'open lock' });
        assert.throws(() => native.isLocked(path), { code, step: 'open lock' });
      }
      assert.equal(existsSync(target), false);
    });
  });

  describe('a port that is listened on', () => {
    it('is one with a socket that listens there, and no socket of another kind', async () => {
      const port = await freePort();
      const isListening = (ip: string) => native.isListening(ip, port);
      assert.equal(isListening('127.0.0.1'), false);
      const server = createServer((socket) => socket.end());
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
      assert.deepEqual(['127.0.0.1', '127.0.0.2'].map(isListening), [true, false]);
      // The server's end is established, then in TIME_WAIT, as it ends first.
      const client = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
      await once(client, 'connect');
      server.close();
      await eventually(() => assert.equal(isListening('127.0.0.1'), false));
      client.resume();
      await once(client, 'end');
      client.end();
      await once(client, 'close');
      assert.equal(isListening('127.0.0.1'), false);
      // A socket that is bound there.
      const other = createServer().listen(0, '127.0.0.1');
      await once(other, 'listening');
      const address = other.address();
      assert.ok(address !== null && typeof address === 'object');
      const from = connect({
        host: '127.0.0.1',
        port: address.port,
        localPort: port,
        localAddress: '127.0.0.5',
      });
      await once(from, 'connect');
      assert.equal(isListening('127.0.0.5'), false);
      from.destroy();
      other.close();
    });

    it('is also one that is listened on at all addresses, and none at an address on no link', async () => {
      const port = await freePort();
      assert.equal(native.isListening('203.0.113.9', port), false);
      const server = createServer().listen(port, '0.0.0.0');
      await once(server, 'listening');
      assert.equal(native.isListening('127.0.0.1', port), true);
      assert.equal(native.isListening('127.0.0.1', port === 1 ? 2 : port - 1), false);
      server.close();
      await once(server, 'close');
      assert.equal(native.isListening('127.0.0.1', port), false);
    });
  });
});

describe('the supervisor of the process of a container', () => {
  freshNative();

  interface Line {
    readonly status: number;
    readonly msg: string;
    readonly pid: number;
  }

  /** A program that prints its pid and then does as told. */
  function printing(then: string, first = ':'): readonly string[] {
    return ['sh', '-c', `${first}; printf '{"pid":%d}\\n' $$; ${then}`];
  }

  function supervise(...command: readonly string[]) {
    return superviseBy(join(nativeFolder, 'nmi-supervise'), command);
  }

  function superviseBy(program: string, command: readonly string[]) {
    const child = spawn(program, command, { stdio: ['ignore', 'pipe', 'pipe'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    let errors = '';
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
    return {
      child,
      errors: () => errors,
      /** The next line; the program's own has a pid, the supervisor's a message. */
      next: async (): Promise<Line> => JSON.parse((await lines.next()).value as string) as Line,
      ended: once(child, 'exit').then(([code]) => code as number | null),
    };
  }

  it('starts a killed process again at once, and says so', async () => {
    const { child, next, ended } = supervise(...printing('exec sleep 100'));
    const first = await next();
    using time = new OwnTime();
    process.kill(first.pid, 'SIGKILL');
    const { status, msg } = await next();
    assert.deepEqual([status, msg], [137, 'the process failed, it is started again']);
    const second = await next();
    assert.notEqual(second.pid, first.pid);
    assert.ok(time.nowMs() < 2_000, `${time.nowMs()} ms`);
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
    assert.throws(() => process.kill(second.pid, 0), { code: 'ESRCH' });
  });

  it('passes a signal to stop on, and ends with the status of the process', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const stopping = printing('while :; do sleep 0.05; done', 'trap "exit 7" TERM INT');
      const { child, next, ended } = supervise(...stopping);
      await next();
      child.kill(signal);
      assert.equal(await ended, 7);
    }
  });

  it('ends with a process that ends well', async () => {
    const { next, ended } = supervise(...printing('exit 0'));
    await next();
    assert.equal(await ended, 0);
  });

  it('does not start again what a wrong flag or setting has ended', async () => {
    for (const status of [2, 78]) {
      const { next, ended } = supervise(...printing(`exit ${status}`));
      await next();
      assert.equal(await ended, status);
    }
  });

  it('leaves a process that fails again and again to the kubelet', async () => {
    const { next, ended } = supervise(...printing('exit 3'));
    const pids = new Set<number>();
    for (let start = 0; start < 5; start++) {
      pids.add((await next()).pid);
      const { status, msg } = await next();
      assert.equal(status, 3);
      assert.equal(msg.includes('this container ends'), start === 4, msg);
    }
    assert.equal(pids.size, 5);
    assert.equal(await ended, 3);
  });

  it('starts again however often it fails, if not five times within ten minutes', async () => {
    // The ten minutes are half a second. After the third failure the pauses are longer.
    using folder = mkdtempDisposableSync(join(tmpdir(), 'nmi-test-supervise-'));
    const program = join(folder.path, 'nmi-supervise');
    const source = join(import.meta.dirname, '../../../src/redirect/native/supervise.c');
    execFileSync('cc', ['-std=gnu17', '-DWINDOW_MS=500', source, '-o', program]);
    const { child, next, ended } = superviseBy(program, printing('exit 3'));
    for (let start = 0; start < 8; start++) {
      await next();
      assert.equal((await next()).msg, 'the process failed, it is started again');
    }
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
  });

  it('can be stopped while it waits for the next start', async () => {
    const { child, next, ended } = supervise(...printing('exit 3'));
    for (let line = 0; line < 8; line++) await next();
    // The pause is 0.8 s now.
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
  });

  it('takes its process along when it is killed', async () => {
    const { child, next, ended } = supervise(...printing('exec sleep 100'));
    const { pid } = await next();
    child.kill('SIGKILL');
    await ended;
    const isGone = (): boolean => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    };
    while (!isGone()) await new Promise(setImmediate);
  });

  it('reports what cannot be started, and does not try again', async () => {
    const { ended, errors } = supervise('/no/such/program');
    assert.equal(await ended, 127);
    assert.match(errors(), /^nmi-supervise: \/no\/such\/program: No such file/);
    const empty = supervise();
    assert.equal(await empty.ended, 2);
    assert.match(empty.errors(), /^usage: /);
  });
});

interface Section {
  readonly name: string;
  readonly bytes: Buffer;
}

/** The sections of an ELF file (64 bit, little endian, as every BPF object is here). */
function readSections(object: Uint8Array): readonly Section[] {
  const file = Buffer.from(object);
  const headersAt = Number(file.readBigUInt64LE(0x28));
  const [size, count, namesIndex] = [0x3a, 0x3c, 0x3e].map((at) => file.readUInt16LE(at));
  assert.ok(size !== undefined && count !== undefined && namesIndex !== undefined);
  const header = (index: number) => file.subarray(headersAt + index * size);
  const namesAt = Number(header(namesIndex).readBigUInt64LE(0x18));
  return Array.from({ length: count }, (_, index) => {
    const at = namesAt + header(index).readUInt32LE(0);
    const start = Number(header(index).readBigUInt64LE(0x18));
    const length = Number(header(index).readBigUInt64LE(0x20));
    return {
      name: file.toString('latin1', at, file.indexOf(0, at)),
      bytes: file.subarray(start, start + length),
    };
  });
}

const instructionBytes = 8;
const [classMask, jumpClass, jump32Class] = [0x07, 0x05, 0x06];
const [storeClass, storeRegisterClass, stackRegister] = [0x02, 0x03, 10];
const [sizeMask, wholeSlot] = [0x18, 0x18];
const [jumpAlways, call, exit, loadWide] = [0x05, 0x85, 0x95, 0x18];

/** The possible next instructions after the instruction at a position. */
function successors(program: Buffer, index: number): readonly number[] {
  const at = index * instructionBytes;
  const code = program.readUInt8(at);
  const target = index + 1 + program.readInt16LE(at + 2);
  if (code === exit) return [];
  if (code === jumpAlways) return [target];
  if (code === loadWide) return [index + 2];
  const isJump = [jumpClass, jump32Class].includes(code & classMask) && code !== call;
  return isJump ? [index + 1, target] : [index + 1];
}

/** Whether some path through the program returns to an earlier instruction. */
function hasLoop(
  program: Buffer,
  index = 0,
  above = new Set<number>(),
  left = new Set<number>(),
): boolean {
  if (above.has(index)) return true;
  if (left.has(index)) return false;
  above.add(index);
  const found = successors(program, index).some((next) => hasLoop(program, next, above, left));
  above.delete(index);
  left.add(index);
  return found;
}

describe('the object file of the programs', () => {
  // clang puts a struct literal into `.rodata`, with a BTF entry without members. Linux before 5.12
  // then refuses the whole BTF, and so the map of dials, which needs BTF: eBPF mode does not load
  // on 5.10.
  it('contains no constant of the compiler, which Linux 5.10 refuses', () => {
    const names = readSections(readPrograms()).map(({ name }) => name);
    assert.ok(names.includes('cgroup/connect4'), names.join(' '));
    const data = names.filter((name) => /^\.(?:rodata|data|bss)/.test(name));
    assert.deepEqual(data, ['.rodata.nmi']);
  });

  // On Linux before 6.8, an agent without CAP_PERFMON may write a stack slot in which the compiler
  // kept a register only as a whole: "attempt to corrupt spilled pointer on stack", seen on 5.10.
  it('writes no partial stack slot, which Linux 5.10 refuses for an agent without CAP_PERFMON', () => {
    const programs = readSections(readPrograms()).filter(({ name }) =>
      /^cgroup|^sockops/.test(name),
    );
    for (const { name, bytes } of programs) {
      for (let at = 0; at < bytes.length; at += instructionBytes) {
        const [code = 0, registers = 0] = bytes.subarray(at);
        const isStore = [storeClass, storeRegisterClass].includes(code & classMask);
        if (!isStore || (registers & 0x0f) !== stackRegister) continue;
        assert.equal(code & sizeMask, wholeSlot, `${name}, instruction ${at / instructionBytes}`);
      }
    }
  });

  // A process that may not trace the kernel (no CAP_PERFMON), such as the DaemonSet, must not read
  // it by speculation either. With mitigations on, the verifier follows the wrong path of each
  // branch as well, and so follows a loop without end: "The sequence of 8193 jumps is too complex",
  // seen on 5.10, 6.1 and 6.12; 6.18 and 7.3 accept it.
  it('has no loop, which Linux 6.12 refuses for an agent without CAP_PERFMON', () => {
    const programs = readSections(readPrograms()).filter(({ name }) =>
      /^cgroup|^sockops/.test(name),
    );
    assert.equal(programs.length, 6);
    for (const { name, bytes } of programs) assert.equal(hasLoop(bytes), false, name);
  });
});
