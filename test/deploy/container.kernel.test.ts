/** The container of the manifests: its privileges are enough, and each one is needed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { freshExecutable } from '../../scripts/build.ts';
import { openFabric } from '../../lab/fabric/fabric.ts';
import { fabricSkip } from '../lab/support/fabric-pod.ts';
import { whyNoBpfTests } from '../kernel/redirect/cgroup-fixture.ts';
import { whyNoKernelTests } from '../kernel/redirect/namespaces.ts';

const repository = join(import.meta.dirname, '../..');
const inner = join(import.meta.dirname, 'support/container-inner.ts');
const tools = ['iptables-nft', 'setpriv', 'unshare', 'chroot'];
const skip = fabricSkip || (await whyNoKernelTests(...tools)) || whyNoBpfTests();
const limitMs = 120_000;

describe('the container of the DaemonSet', { skip }, () => {
  it('uses eBPF, works without it if not permitted, opens the node again, and works as two', async () => {
    const dist = dirname(await freshExecutable());
    const root = await mkdtemp(join(tmpdir(), 'nmi-image-'));
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(root, { recursive: true, force: true }));
    // Users other than root must be able to enter.
    await chmod(root, 0o755);
    const made = spawnSync(join(repository, 'deploy/image-root.sh'), [root, dist], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(made.status, 0, made.stderr);
    const fabric = stack.use(await openFabric({ name: 'container' }));
    const child = fabric.exec('azure', process.execPath, [inner, fabric.prefix, root]);
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (printed += text));
    }
    const late = setTimeout(() => child.kill('SIGKILL'), limitMs);
    const [code] = (await once(child, 'close')) as [number | null];
    clearTimeout(late);
    assert.equal(code, 0, printed);
    assert.match(printed, /^held$/m);
  });
});
