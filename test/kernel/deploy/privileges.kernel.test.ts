/**
 * The table of privileges in `deploy/README.md`, row by row: each row is enough, and each entry
 * needed.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import {
  openBpfFolder,
  openCgroupTree,
  whyNoBpfTests,
  type CgroupTree,
} from '../redirect/cgroup-fixture.ts';
import {
  openNamespace,
  sweepDeadNamespaces,
  whyNoKernelTests,
  whyNoLegacyTables,
  type Namespace,
} from '../redirect/namespaces.ts';
import { sourceEnvironment } from '../../support/source-environment.ts';
import { readPodSpec } from '../../cluster/chart/chart-render.ts';
import { privileges, renderPrivileges, type Capability, type Command } from './privileges.ts';

const repository = join(import.meta.dirname, '../../..');
const skip =
  (await whyNoKernelTests('iptables-nft', 'iptables-legacy', 'setpriv', 'nsenter')) ||
  whyNoBpfTests();
const noLegacy = skip || (await whyNoLegacyTables());
const limitMs = 20_000;

describe('deploy/README.md', () => {
  const page = readFileSync(join(repository, 'deploy/README.md'), 'utf8');

  it('has the table of privileges, which the DaemonSet requests for every mode that it may choose', async () => {
    const table = renderPrivileges(privileges);
    assert.ok(page.includes(`\n${table}\n`), table);
    const { containers } = await readPodSpec('nmi.yaml');
    const wanted = privileges.flatMap(({ needs }) => needs.map(({ capability }) => capability));
    const { add } = containers[0]?.securityContext.capabilities ?? {};
    assert.deepEqual(new Set(add), new Set(wanted));
  });

  it('has the table of containers that the manifests request', async () => {
    const rows: string[] = [];
    for (const [file, kind] of [
      ['nmi.yaml', 'DaemonSet'],
      ['nmi.yaml', 'Deployment'],
      ['nmi-split.yaml', 'DaemonSet'],
      ['nmi-split.yaml', 'Deployment'],
      ['open-nodes.yaml', 'DaemonSet'],
    ] as const) {
      const { initContainers = [], containers } = await readPodSpec(file, kind);
      for (const { name, args = [], securityContext } of [...initContainers, ...containers]) {
        const { runAsUser, capabilities } = securityContext;
        const verb = args.filter((word) => !word.startsWith('-')).join(' ');
        const runs = args.length === 0 ? 'nothing' : `\`nmi ${verb === '' ? 'run' : verb}\``;
        const granted = (capabilities.add ?? []).toSorted().join(', ') || 'none';
        rows.push(
          `| [${file}](${file}) | \`${name}\` | ${runs} | ${String(runAsUser)} | ${granted} |`,
        );
      }
    }
    const table = `| --- | --- | --- | --- | --- |\n${rows.join('\n')}\n\n`;
    assert.ok(page.includes(table), table);
  });
});

describe('with the privileges of the table', { skip }, () => {
  let tree: CgroupTree;
  /** Kubeconfig of an absent API server: the redirect does not wait for it. */
  let files = '';

  before(async () => {
    await sweepDeadNamespaces();
    tree = openCgroupTree();
    files = mkdtempSync(join(tmpdir(), 'nmi-test-privileges-'));
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
  });
  after(() => {
    tree.close();
    rmSync(files, { recursive: true, force: true });
  });

  for (const { commands, flags, needs } of privileges) {
    for (const command of commands) {
      const capabilities = needs.map(({ capability }) => capability);
      it(`${command} ${flags.join(' ')} works`, async () => {
        const { ends, bounding } = await start(command, flags, capabilities);
        // If no redirect is configured, none is reported.
        const isWithout = flags.includes('--redirect=none');
        assert.match(ends, isWithout ? /"msg":"listening"/ : /"msg":"redirect installed"/);
        assert.equal(bounding, setOf(capabilities));
      });

      for (const { capability, says } of needs) {
        it(`${command} ${flags.join(' ')} does not without ${capability}, and reports where`, async () => {
          const rest = capabilities.filter((name) => name !== capability);
          const { ends } = await start(command, flags, rest);
          assert.match(ends, /"msg":"(?:redirect not in place|agent cannot start)/);
          assert.ok(ends.includes(says[command]), `${ends} instead of ${says[command]}`);
        });
      }
    }
  }

  it(
    'nmi redirect run needs no NET_RAW for nft, even if the legacy tables exist',
    { skip: noLegacy },
    async () => {
      const flags = ['--redirect=iptables', '--iptables-backend=nft'];
      const { ends } = await start('nmi redirect run', flags, ['NET_ADMIN'], async (node) => {
        for (const table of ['nat', 'mangle']) await node.run(`iptables-legacy -t ${table} -S`);
      });
      assert.match(ends, /"msg":"redirect installed"/);
      assert.match(ends, /iptables legacy not looked at: /);
    },
  );

  /** Runs it as uid 0 on a separate node until it reports the state of its redirect. */
  async function start(
    command: Command,
    flags: readonly string[],
    granted: readonly Capability[],
    prepare?: (node: Namespace) => Promise<void>,
  ) {
    await using stack = new AsyncDisposableStack();
    const space = stack.use(await openNamespace());
    await prepare?.(space);
    const bpf = openBpfFolder();
    stack.defer(() => {
      bpf.close();
    });
    const set = ['-all', ...granted.map((name) => `+${name.toLowerCase()}`)].join(',');
    const words = [
      ...command.split(' ').slice(1),
      ...[...flags, '--http-probe-port=0', '--prometheus-port=0'],
      ...(command === 'nmi run' ? ['--node=n', '--allow-network-plugin-kubenet'] : []),
    ];
    const child = spawn(
      'sh',
      [
        ...['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', tree.make('kubepods/podagent/c1')],
        ...['nsenter', `--net=/run/netns/${space.name}`, '--'],
        ...['setpriv', '--pdeathsig', 'KILL', `--bounding-set=${set}`, '--inh-caps=-all'],
        ...['--no-new-privs', '--', process.execPath, join(repository, 'src/main.ts'), ...words],
      ],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: {
          ...sourceEnvironment,
          KUBECONFIG: join(files, 'kubeconfig'),
          NMI_POD_UID: 'agent',
          NMI_CGROUP_ROOT: tree.path,
          NMI_BPF_PIN_FOLDER: `${bpf.path}/nmi`,
          NMI_EXPLAIN_SOCKET: join(files, 'explain.sock'),
          NMI_SHARED_FOLDER: files,
        },
      },
    );
    const exited = once(child, 'exit');
    stack.defer(async () => {
      child.kill('SIGKILL');
      await exited;
    });
    const late = setTimeout(() => child.kill('SIGKILL'), limitMs);
    stack.defer(() => {
      clearTimeout(late);
    });
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      const last = flags.includes('--redirect=none')
        ? /"msg":"(?:listening|agent cannot start)/
        : /redirect installed|redirect not in place|cannot start/;
      if (!last.test(line)) continue;
      return { ends: line, bounding: boundingSetOf(child.pid) };
    }
    assert.fail(`it said nothing of its redirect: ${lines.slice(-3).join('\n')}`);
  }
});

/** The numbers of `linux/capability.h`. */
const numbers: Readonly<Record<Capability, bigint>> = {
  NET_ADMIN: 12n,
  NET_RAW: 13n,
  BPF: 39n,
};

/** Undefined for a process that has ended. */
function boundingSetOf(pid = 0): bigint | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return BigInt(`0x${/^CapBnd:\s+(\w+)$/m.exec(status)?.[1] ?? ''}`);
  } catch {
    return undefined;
  }
}

function setOf(capabilities: readonly Capability[]): bigint {
  return capabilities.reduce((set, name) => set | (1n << numbers[name]), 0n);
}
