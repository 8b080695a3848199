/**
 * A pod whose processes run on gVisor: its network stack takes the addresses of the pod's interface
 * and sends frames, so the node's kernel sees no socket.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import type { TestBed } from '../../../lab/test-bed/test-bed.ts';
import { tokenTarget, type LabPod, type PodReply } from '../../../lab/pods/pod.ts';

/** Why gVisor cannot be tried on this machine, or undefined. */
export function whyNoGvisor(): string | undefined {
  for (const program of ['runsc', 'curl']) {
    if (spawnSync(program, ['--version'], { stdio: 'ignore' }).status !== 0) {
      return `${program} is not installed`;
    }
  }
  return undefined;
}

export interface Sandbox extends Disposable {
  ask(): Promise<PodReply>;
}

/** Needs neither KVM nor a kernel that lets others intercept system calls. */
const platform = ['--platform=ptrace', '--network=sandbox', '--ignore-cgroups'];
/**
 * By this file, gVisor of 2022 recognizes the root network namespace, which it refuses; since Linux
 * 6.13 every namespace has it.
 */
const hide = 'mount -t tmpfs none /proc/sys/net/core && exec "$@"';

export async function openSandbox(testBed: TestBed, pod: LabPod): Promise<Sandbox> {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-gvisor-'));
  using opening = new DisposableStack();
  opening.defer(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const runsc = ['runsc', `--root=${join(folder, 'state')}`, ...platform];
  writeFileSync(join(folder, 'config.json'), JSON.stringify(renderBundle(testBed, pod)));
  const run = [...runsc, 'run', `--bundle=${folder}`, pod.name];
  testBed.environment.startInPod(pod.name, ['unshare', '-m', 'sh', '-c', hide, 'sh', ...run]);
  // The socket that controls a sandbox is an abstract one, of the network namespace.
  const execute = async (...words: readonly string[]) => {
    const [program = '', ...leading] = [...runsc, 'exec', pod.name, ...words];
    return testBed.environment.runInPod(pod.name, program, leading);
  };
  await eventually(async () => {
    const { code, stdout, stderr } = await execute('dmesg');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /gVisor/);
  }, 20_000);
  const url = `http://169.254.169.254${tokenTarget({})}`;
  const owned = opening.move();
  return {
    ask: async () => {
      const words = ['curl', '--silent', '--show-error', '--include', '--max-time', '10'];
      const { stdout, stderr } = await execute(...words, '--header', 'Metadata: true', url);
      return pod.noteResponse(stdout === '' ? stderr : stdout);
    },
    [Symbol.dispose]: () => {
      owned.dispose();
    },
  };
}

/** The bundle of one container on the files of this machine. */
function renderBundle(testBed: TestBed, pod: LabPod): object {
  const path = testBed.environment.podNamespace(pod.name);
  return {
    ociVersion: '1.0.0',
    process: {
      user: { uid: 0, gid: 0 },
      args: ['sleep', 'infinity'],
      env: [`PATH=${process.env['PATH'] ?? ''}`],
      cwd: '/',
    },
    root: { path: '/', readonly: true },
    linux: {
      namespaces: [
        ...['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
        { type: 'network', path },
      ],
    },
  };
}
