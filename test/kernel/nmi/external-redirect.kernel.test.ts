/**
 * The agent as two processes, as in the manifest: `nmi redirect run` with the capabilities, and
 * `nmi run` without any, under the default seccomp rule of container runtimes, which does not
 * permit bpf(2). There is no API server, so a known pod is refused because the watches fail.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readState } from '../../../src/nmi/kernel/redirect-state.ts';
import { withoutBpf } from '../../../lab/fabric/without-bpf.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { whyNoBpfTests } from '../redirect/cgroup-fixture.ts';
import { EbpfTestBed } from '../redirect/ebpf-test-bed.ts';
import { sourceEnvironment } from '../../support/source-environment.ts';
import { wakeUpsPerSecond } from '../../support/wake-ups.ts';
import { sweepDeadNamespaces, whyNoKernelTests, type Namespace } from '../redirect/namespaces.ts';

const skip =
  (await whyNoKernelTests('iptables-nft-save', 'setpriv', 'nsenter', 'cc')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const main = join(import.meta.dirname, '../../../src/main.ts');
const patienceMs = 20_000;
const agentUid = 'agent';
const probePort = 8085;

const fetchText = (url: string) => `
  fetch('${url}', { headers: { Metadata: 'true' }, signal: AbortSignal.timeout(10_000) })
    .then(async (response) => console.log(response.status + ' ' + await response.text()),
      (error) => console.log(error.cause?.code ?? error.name));
`;
const tokenUrl =
  'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r';

for (const mode of ['ebpf', 'iptables'] as const) {
  describe(`an agent without capabilities beside nmi redirect run (${mode})`, { skip }, () => {
    let testBed: EbpfTestBed;
    let files = '';
    let kernelSide: Side;
    let servingSide: Side;

    before(async () => {
      testBed = await EbpfTestBed.open();
      await testBed.startCloud();
      files = mkdtempSync(join(tmpdir(), 'nmi-test-split-'));
      mkdirSync(join(files, 'run'));
      const named = { name: 'c', context: { cluster: 'c', user: 'u' } };
      const kubeconfig = {
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'c',
        contexts: [named],
        clusters: [{ name: 'c', cluster: { server: 'http://127.0.0.1:1' } }],
        users: [{ name: 'u', user: { token: 'none' } }],
      };
      writeFileSync(join(files, 'kubeconfig'), JSON.stringify(kubeconfig));
      kernelSide = new Side(() => start('c1', '-all,+bpf,+net_admin', [], kernelWords));
      servingSide = new Side(() => start('c2', '-all', [withoutBpf], servingWords));
    });
    after(async () => {
      await servingSide.kill();
      await kernelSide.kill();
      await testBed.close();
      rmSync(files, { recursive: true, force: true });
    });

    const kernelWords = [
      ...['redirect', 'run', `--redirect=${mode}`, '--iptables-backend=nft'],
      ...['--http-probe-port=0', '--prometheus-port=0', '--ipt-update-interval-sec=1'],
    ];
    const servingWords = [
      ...['run', '--redirect=pinned', '--node=n', '--allow-network-plugin-kubenet'],
      ...[`--http-probe-port=${probePort}`, '--prometheus-port=0', '--ipt-update-interval-sec=1'],
    ];

    /** In a container of the agent's own pod. */
    function start(
      container: string,
      capabilities: string,
      through: readonly string[],
      words: readonly string[],
      uid = agentUid,
    ): ChildProcess {
      return spawn(
        'sh',
        [
          ...inside(testBed.node, `kubepods/pod${agentUid}/${container}`),
          ...[...through, 'setpriv', '--pdeathsig', 'KILL', `--bounding-set=${capabilities}`],
          ...['--inh-caps=-all', '--no-new-privs', '--', process.execPath, main, ...words],
        ],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
          env: {
            ...sourceEnvironment,
            KUBECONFIG: join(files, 'kubeconfig'),
            NMI_POD_UID: uid,
            NMI_CGROUP_ROOT: testBed.tree.path,
            NMI_BPF_PIN_FOLDER: testBed.pinFolder,
            NMI_SHARED_FOLDER: shared(),
            NMI_EXPLAIN_SOCKET: 'off',
          },
        },
      );
    }

    function inside(space: Namespace, cgroup: string): readonly string[] {
      const enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"';
      return ['-c', enter, testBed.tree.make(cgroup), 'nsenter', `--net=/run/netns/${space.name}`];
    }

    function get(space: Namespace, cgroup: string, url: string): string {
      const words = [...inside(space, cgroup), process.execPath, '-e', fetchText(url)];
      return spawnSync('sh', words, { encoding: 'utf8', timeout: patienceMs }).stdout.trim();
    }

    /** The answer to a pod's request on a new connection. */
    function ask(): string {
      return get(testBed.podA, 'kubepods/burstable/poda/c1', tokenUrl);
    }

    function readiness(): string {
      return get(testBed.node, 'node', `http://127.0.0.1:${probePort}/readyz`);
    }

    function shared(): string {
      return join(files, 'run');
    }

    const known =
      /^503 .*The agent has not read the pods of this node: the watch of \w+ has failed for/;

    it('waits until the other process has installed the redirect', async () => {
      servingSide.start();
      await servingSide.untilPrinted(/"msg":"redirect chosen"/);
      kernelSide.start();
      await kernelSide.untilPrinted(/"msg":"redirect installed"/);
      await servingSide.untilPrinted(/"msg":"listening"/);
      await servingSide.untilPrinted(/"msg":"redirect installed"/);
    });

    it('identifies callers although bpf(2) is not permitted', () => {
      assert.match(ask(), known);
      assert.doesNotMatch(readiness(), /"redirect"/);
    });

    it('identifies callers while the other process is down', async () => {
      await kernelSide.kill();
      assert.match(ask(), known);
      // It is no problem before half a minute.
      assert.doesNotMatch(readiness(), /"redirect"/);
    });

    it('continues with the successor of the other process', async () => {
      kernelSide.start();
      await kernelSide.untilPrinted(/"msg":"redirect installed"/);
      await eventually(() => {
        assert.match(ask(), known);
        assert.doesNotMatch(readiness(), /"redirect"/);
      }, patienceMs);
    });

    it('wakes the other process only for its checks while nothing happens', async () => {
      await delay(3_000);
      const wakeUps = await wakeUpsPerSecond(kernelSide.pid);
      // Each second it checks the redirect here, with programs of iptables.
      assert.ok(wakeUps > 0 && wakeUps < 60, `${wakeUps} wake-ups a second`);
    });

    // With iptables the node itself is not redirected.
    if (mode === 'iptables') return;

    it('has no redirect by a process that cannot exempt the pod of both', async (t) => {
      await servingSide.kill();
      await kernelSide.kill();
      const other = new Side(() => start('c1', '-all,+bpf,+net_admin', [], kernelWords, 'other'));
      t.after(() => other.kill());
      other.start();
      const problem = /the agent's pod other has no cgroup below [^"]*kubepods/;
      await other.untilPrinted(problem);
      await eventually(() => assert.match(readState(shared())?.problems.join() ?? '', problem));
    });
  });
}

/** One of the two processes, with all its restarts. */
class Side {
  readonly #spawn: () => ChildProcess;
  #child: ChildProcess | undefined;
  #lines: string[] = [];

  constructor(spawnIt: () => ChildProcess) {
    this.#spawn = spawnIt;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  start(): void {
    const lines: string[] = [];
    this.#lines = lines;
    this.#child = this.#spawn();
    const { stdout } = this.#child;
    assert.ok(stdout !== null);
    createInterface({ input: stdout }).on('line', (line) => lines.push(line));
  }

  /** Of the current run. */
  async untilPrinted(pattern: RegExp): Promise<void> {
    await eventually(() => {
      const isThere = this.#lines.some((line) => pattern.test(line));
      assert.ok(isThere, `${pattern.source} is not in\n${this.#lines.slice(-5).join('\n')}`);
    }, patienceMs);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
}
