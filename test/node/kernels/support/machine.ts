/**
 * A small virtual machine with another kernel. Its root is this machine's own, or a folder for another
 * processor, read-only, below a tmpfs: only its output comes back. It has no network except loopback.
 *
 * 1. Emulated (TCG), even if /dev/kvm exists: that KVM may run no stock kernel.
 * 2. `-icount`: the guest's clock counts its instructions, so that its time limits mean the same on
 *    a busy host. One CPU of 1 GIPS; a second of the guest took 5 to 7 s here.
 * 3. An uncompressed kernel, which starts 10 s faster, and `nice 19`: tests beside it measure times.
 */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ownArchitecture, type Architecture } from '../../../../scripts/image/builder.ts';
import { repositoryRoot } from '../../../conventions/tree.ts';
import { prepareTools, type Kernel } from './debian-kernels.ts';

export interface Check {
  readonly code: number;
  readonly output: string;
}

export interface GuestRun {
  /** Results of the script's `check` calls, by name. */
  readonly checks: ReadonlyMap<string, Check>;
  /** Exit code of the script; undefined if the machine ended before it. */
  readonly code: number | undefined;
  readonly output: string;
  /** The end of the kernel's output. */
  readonly console: string;
}

export interface MachineOptions {
  /** Added to the kernel's command line. */
  readonly parameters?: readonly string[];
  /** By the host's clock: after this time the machine is ended. */
  readonly limitMs: number;
  /** Folders that the machine sees, its root first. Default: this machine's own root. */
  readonly shared?: readonly SharedFolder[];
}

export interface SharedFolder {
  readonly source: string;
  /** Path in the machine; it exists in the folder that is shared before. */
  readonly target: string;
}

interface Hardware {
  readonly qemu: string;
  readonly processor: string;
  readonly board: string;
  /** The kernel's name of the first serial port. */
  readonly console: string;
  /** Adds a serial port whose output goes to a file. */
  readonly serial: (id: string, path: string) => readonly string[];
  /** The guest's names of the two ports after the console. */
  readonly ports: readonly [output: string, code: string];
}

/** Cloud's arm64 processors are of this kind; `max` is slower by its pointer authentication. */
const hardware: Readonly<Record<Architecture, Hardware>> = {
  amd64: {
    qemu: 'qemu-system-x86_64',
    processor: 'max',
    board: 'q35',
    console: 'ttyS0',
    serial: (_id, path) => ['-serial', `file:${path}`],
    ports: ['ttyS1', 'ttyS2'],
  },
  arm64: {
    qemu: 'qemu-system-aarch64',
    processor: 'neoverse-n1',
    board: 'virt,gic-version=3',
    console: 'ttyAMA0',
    // The board has one port of its own.
    serial: (id, path) => [
      ...['-chardev', `file,id=${id},path=${path}`],
      ...['-device', `pci-serial,chardev=${id}`],
    ],
    ports: ['ttyS0', 'ttyS1'],
  },
};

/** Part of QEMU's package in Debian 12, a separate package in Debian 13. */
const virtiofsPaths = ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd'];
const memoryMib = 3072;
/** Without a root the kernel has only these modules, each after those it needs. */
const earlyModules = ['virtio_pci', 'virtiofs', 'overlay', 'virtio_rng'];

/** Why no virtual machine can run here, or `false`. */
export function whyNoMachine(architecture: Architecture): string | false {
  if (process.getuid?.() !== 0) return 'not root';
  if (ownArchitecture !== 'amd64') return 'this machine is not of x86-64';
  const { qemu } = hardware[architecture];
  for (const tool of [qemu, 'apt-get', 'dpkg', 'setpriv', 'unshare', 'xz', 'zstd', 'lz4']) {
    if (spawnSync(tool, ['--version']).error !== undefined) return `${tool} is not installed`;
  }
  if (!virtiofsPaths.some((path) => existsSync(path))) return 'virtiofsd is not installed';
  return false;
}

/** Runs a bash script in the repository's folder, as root of a node without pods. */
export async function runInMachine(
  kernel: Kernel,
  script: string,
  { parameters = [], limitMs, shared = [{ source: '/', target: '' }] }: MachineOptions,
): Promise<GuestRun> {
  sweepDead();
  const work = mkdtempSync(join(tmpdir(), `nmi-vm-${process.pid}-`));
  let daemon: ChildProcess | undefined;
  try {
    makeInitramfs(work, kernel, script);
    daemon = await serveRoot(work, shared);
    const { qemu } = hardware[kernel.architecture];
    const machine = start(qemu, qemuArguments(work, kernel, parameters), join(work, 'qemu.log'));
    const timer = setTimeout(() => machine.kill('SIGKILL'), limitMs);
    await once(machine, 'close');
    clearTimeout(timer);
    return readRun(work);
  } finally {
    if (daemon !== undefined) await end(daemon);
    rmSync(work, { recursive: true, force: true });
  }
}

/** Folders of killed runs; their processes ended with them. */
function sweepDead(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = /^nmi-vm-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** Ends with this process, even if it is killed: the kernel ends it then. */
function start(tool: string, args: readonly string[], log: string): ChildProcess {
  const shell = ['sh', '-c', 'log=$0; exec "$@" >"$log" 2>&1', log];
  const words = ['--pdeathsig=KILL', 'nice', '-n', '19', ...shell, tool, ...args];
  return spawn('setpriv', words, { stdio: 'ignore' });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'close');
}

/** The folders are mounted once more, read-only, in the daemon's own mount namespace. */
async function serveRoot(work: string, shared: readonly SharedFolder[]): Promise<ChildProcess> {
  const root = join(work, 'root');
  mkdirSync(root);
  const socket = join(work, 'fs.sock');
  const daemon = virtiofsPaths.find((path) => existsSync(path)) ?? '';
  const mounts = shared.map(({ source, target }) => {
    const [from, to] = [`'${source}'`, `'${root}${target}'`];
    return `mount --bind ${from} ${to} && mount -o remount,bind,ro ${to}`;
  });
  const script = [...mounts, 'exec "$@"'].join(' && ');
  const words = [daemon, `--socket-path=${socket}`, '-o', `source=${root}`, '-o', 'cache=always'];
  const enter = ['--mount', '--kill-child', 'bash', '-c', script, 'bash'];
  const log = join(work, 'virtiofsd.log');
  const child = start('unshare', [...enter, ...words, '--thread-pool-size=2'], log);
  for (let tries = 0; !existsSync(socket); tries += 1) {
    if (tries === 200) throw new Error(`virtiofsd does not start: ${readFileSync(log, 'utf8')}`);
    await sleep(50);
  }
  return child;
}

function qemuArguments(work: string, kernel: Kernel, parameters: readonly string[]) {
  const memory = `memory-backend-memfd,id=mem,size=${memoryMib}M,share=on`;
  // With mitigations: the verifier then requires more of programs of an agent without CAP_PERFMON.
  const quick = 'quiet nokaslr audit=0 apparmor=0 selinux=0';
  const { processor, board, console, serial } = hardware[kernel.architecture];
  return [
    ...['-nodefaults', '-no-user-config', '-nographic', '-no-reboot', '-cpu', processor],
    ...['-M', `${board},accel=tcg,memory-backend=mem`, '-smp', '1', '-m', String(memoryMib)],
    ...['-icount', 'shift=0', '-object', memory],
    ...['-chardev', `socket,id=fs,path=${join(work, 'fs.sock')}`],
    ...['-device', 'vhost-user-fs-pci,chardev=fs,tag=host', '-device', 'virtio-rng-pci'],
    ...['-serial', `file:${join(work, 'console')}`],
    ...['output', 'code'].flatMap((name) => serial(name, join(work, name))),
    ...['-kernel', kernel.image, '-initrd', join(work, 'initramfs')],
    ...[
      '-append',
      `console=${console} panic=-1 oops=panic rdinit=/init ${quick} ${parameters.join(' ')}`,
    ],
  ];
}

function makeInitramfs(work: string, kernel: Kernel, script: string): void {
  const { busybox, kmod } = prepareTools(kernel.architecture);
  const root = join(work, 'initramfs.d');
  for (const name of ['bin', 'dev', 'proc', 'sys', 'host', 'over', 'new', 'modules']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  copyFileSync(busybox, join(root, 'bin/busybox'));
  copyFileSync(kmod, join(root, 'bin/kmod'));
  for (const [index, path] of listEarlyModules(kernel).entries()) {
    const name = `${String(index).padStart(3, '0')}.ko`;
    writeFileSync(join(root, 'modules', name), readModule(join(kernel.modules, path)));
  }
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  const { modules, version } = kernel;
  const [output_port, code_port] = hardware[kernel.architecture].ports;
  const folder = repositoryRoot;
  const variables = { modules, version, folder, script, output_port, code_port };
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${quote(value)}\n`);
  const guest = (name: string) => readFileSync(join(import.meta.dirname, name), 'utf8');
  writeFileSync(join(root, 'guest-main.sh'), lines.join('') + guest('guest-main.sh'));
  writeFileSync(join(root, 'init'), guest('guest-init.sh'), { mode: 0o755 });
  const pack = 'cd "$0" && find . | "$1" cpio -o -H newc 2>/dev/null >"$2"';
  const { busybox: own } = prepareTools(ownArchitecture);
  execFileSync('sh', ['-c', pack, root, own, join(work, 'initramfs')]);
}

/** From `modules.dep`: each line names a module and everything that it needs, the deepest last. */
function listEarlyModules({ modules }: Kernel): readonly string[] {
  const lines = readFileSync(join(modules, 'modules.dep'), 'utf8').split('\n');
  const paths = earlyModules.flatMap((name) => {
    const line = lines.find((each) => new RegExp(`/${name}\\.ko[.a-z]*:`).test(each));
    return line === undefined ? [] : line.replace(':', '').trim().split(/\s+/).toReversed();
  });
  return [...new Set(paths)];
}

function readModule(path: string): Buffer {
  const tool = { '.xz': 'xz', '.zst': 'zstd' }[/\.(?:xz|zst)$/.exec(path)?.[0] ?? ''];
  if (tool === undefined) return readFileSync(path);
  return execFileSync(tool, ['-dcq', path], { maxBuffer: 1 << 26 });
}

const consoleLines = 25;

function readRun(work: string): GuestRun {
  const read = (name: string) => {
    const path = join(work, name);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  };
  const output = read('output');
  const code = read('code').trim();
  const printed = `${read('qemu.log')}${read('virtiofsd.log')}${read('console')}`;
  return {
    checks: parseChecks(output),
    code: code === '' ? undefined : Number(code),
    output,
    console: printed.split('\n').slice(-consoleLines).join('\n'),
  };
}

function parseChecks(output: string): ReadonlyMap<string, Check> {
  const found = output.matchAll(/^##begin (.*)\n([^]*?)\n##end (\d+)$/gm);
  return new Map(
    [...found].map(([, name = '', text = '', code]) => [
      name,
      { code: Number(code), output: text },
    ]),
  );
}
