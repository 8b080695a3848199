import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openCgroupTree, whyNoBpfTests } from '../redirect/cgroup-fixture.ts';
import { compileRefusedPrograms } from '../redirect/refused-programs.ts';
import { openNamespace, sweepDeadNamespaces, whyNoKernelTests } from '../redirect/namespaces.ts';

const main = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
const skip = await whyNoKernelTests('iptables-nft', 'iptables-legacy', 'setpriv', 'nsenter');

interface Report {
  readonly works: boolean;
  readonly auto: { readonly mode: string; readonly why: string };
  readonly modes: readonly {
    readonly mode: string;
    readonly support: string;
    readonly findings: readonly { readonly part: string; readonly support: string }[];
  }[];
}

describe('nmi redirect probe', { skip }, async () => {
  if (skip !== false) return;
  await sweepDeadNamespaces();
  const space = await openNamespace();
  after(() => space[Symbol.asyncDispose]());

  function probe(
    capabilities: string,
    args: readonly string[],
    environment: NodeJS.ProcessEnv = {},
    through: readonly string[] = [],
    sources = main,
  ) {
    return spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${space.name}`, '--', 'setpriv'],
        ...[`--bounding-set=-all${capabilities}`, '--inh-caps=-all', '--', ...through],
        ...[process.execPath, sources, 'redirect', 'probe', ...args],
      ],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, ...environment } },
    );
  }
  function report(capabilities: string, environment: NodeJS.ProcessEnv = {}): Report {
    return reportOf(probe(capabilities, ['--output=json'], environment));
  }
  function reportOf({
    stdout,
    stderr,
  }: {
    readonly stdout: string;
    readonly stderr: string;
  }): Report {
    assert.equal(stderr, '');
    return JSON.parse(stdout) as Report;
  }
  function supportOf({ modes }: Report, part: string): string | undefined {
    return modes.flatMap(({ findings }) => findings).find((each) => each.part === part)?.support;
  }

  it('finds the features that the other tests use, and leaves nothing behind', async () => {
    const before = await space.run('iptables-nft-save');
    const found = report(',+net_admin,+net_raw,+bpf');
    assert.equal(found.works, true);
    assert.equal(found.modes.find(({ mode }) => mode === 'iptables')?.support, 'supported');
    for (const part of ['iptables nft', 'iptables legacy', 'policy routing']) {
      assert.equal(supportOf(found, part), 'supported', part);
    }
    assert.equal(await space.run('iptables-nft-save'), before);
    assert.equal((await space.run('cat /proc/net/ip_tables_names')).trim(), '');
    assert.equal((await space.run('ip -o link')).trim().split('\n').length, 1);
  });

  it('reports what auto chooses and why, without pods or tree', { skip: whyNoBpfTests() }, () => {
    const tree = openCgroupTree();
    try {
      const { auto } = report(',+net_admin,+bpf', { NMI_CGROUP_ROOT: tree.path });
      assert.equal(auto.mode, 'iptables');
      assert.equal(auto.why, `no eBPF: no pods in the cgroup2 tree at ${tree.path}`);
    } finally {
      tree.close();
    }
    const { auto } = report(',+net_admin,+bpf', { NMI_CGROUP_ROOT: '/proc' });
    assert.equal(auto.mode, 'iptables');
    assert.match(auto.why, /^no eBPF: .*: no cgroup2 tree is at \/proc or mounted below it$/);
  });

  it(
    'finds programs that the kernel refuses, and auto chooses iptables',
    { skip: whyNoBpfTests() },
    () => {
      const work = mkdtempSync(join(tmpdir(), 'nmi-test-refused-'));
      const tree = openCgroupTree();
      try {
        tree.make('kubepods');
        const environment = { NMI_CGROUP_ROOT: tree.path };
        const given = probe(',+net_admin,+bpf,+sys_admin', ['--output=json'], environment);
        assert.equal(supportOf(reportOf(given), 'programs of this version'), 'supported');
        assert.equal(reportOf(given).auto.mode, 'ebpf');
        const sources = copyWithRefusedPrograms(work);
        const rights = ',+net_admin,+bpf,+sys_admin';
        const found = reportOf(probe(rights, ['--output=json'], environment, [], sources));
        assert.equal(supportOf(found, 'programs at connect'), 'supported');
        assert.equal(supportOf(found, 'programs of this version'), 'unsupported');
        assert.equal(found.auto.mode, 'iptables');
        assert.match(
          found.auto.why,
          /^no eBPF: the kernel refuses the programs: .*invalid mem access/,
        );
      } finally {
        tree.close();
        rmSync(work, { recursive: true });
      }
    },
  );

  it('finds nothing of eBPF where the kernel has no bpf(2)', () => {
    const work = mkdtempSync(join(tmpdir(), 'nmi-test-nobpf-'));
    after(() => {
      rmSync(work, { recursive: true });
    });
    const withoutBpf = join(work, 'without-bpf');
    writeFileSync(`${withoutBpf}.c`, WITHOUT_BPF);
    execFileSync('cc', ['-o', withoutBpf, `${withoutBpf}.c`]);
    const found = reportOf(probe(',+net_admin,+sys_admin', ['--output=json'], {}, [withoutBpf]));
    const ebpf = found.modes.find(({ mode }) => mode === 'ebpf');
    assert.equal(ebpf?.support, 'unsupported');
    const ofKernel = ebpf.findings.filter(({ part }) => / at |^links/.test(part));
    assert.equal(ofKernel.length, 6);
    for (const { part, support } of ofKernel) assert.equal(support, 'unsupported', part);
    assert.equal(found.auto.mode, 'iptables');
  });

  it('does not accept an ordinary folder as a cgroup2 tree', () => {
    const plain = mkdtempSync(join(tmpdir(), 'nmi-test-tree-'));
    after(() => {
      rmSync(plain, { recursive: true });
    });
    for (const folder of ['/proc', plain]) {
      const found = report(',+net_admin,+bpf', { NMI_CGROUP_ROOT: folder });
      assert.equal(supportOf(found, 'cgroup2 tree'), 'unsupported', folder);
    }
  });

  it('reports the state of the BPF file system as auto uses it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-pins-'));
    after(() => {
      rmSync(folder, { recursive: true });
    });
    const part = 'BPF file system';
    const inside = { NMI_BPF_PIN_FOLDER: `${folder}/nmi` };
    assert.equal(supportOf(report(',+sys_admin', inside), part), 'supported');
    assert.equal(supportOf(report('', inside), part), 'unknown');
    // A mount would hide its contents.
    writeFileSync(join(folder, 'file'), '');
    assert.equal(supportOf(report(',+sys_admin', inside), part), 'unsupported');
    assert.equal(supportOf(report('', inside), part), 'unsupported');
    const nowhere = { NMI_BPF_PIN_FOLDER: `${folder}/none/nmi` };
    assert.equal(supportOf(report(',+sys_admin', nowhere), part), 'unsupported');
  });

  it('distinguishes unknown features from missing ones', () => {
    const blind = report('');
    assert.equal(blind.works, false);
    assert.equal(supportOf(blind, 'iptables nft'), 'unknown');
    assert.equal(supportOf(blind, 'programs at connect'), 'unknown');
    const text = probe('', []);
    assert.equal(text.status, 1);
    assert.match(text.stdout, /^ {2}iptables in use {20}unknown {5}unknown without CAP_NET_ADMIN/m);
    assert.match(text.stdout, /no way of redirecting is known to work here\n$/);
  });

  it('accepts only two output formats', () => {
    const run = probe('', ['--output=yaml']);
    assert.equal(run.status, 2);
    assert.match(run.stderr, /allowed: text, json/);
  });
});

/** Runs a program as if the kernel had no bpf(2). */
const WITHOUT_BPF = `
  #include <errno.h>
  #include <linux/audit.h>
  #include <linux/filter.h>
  #include <linux/seccomp.h>
  #include <stddef.h>
  #include <sys/prctl.h>
  #include <sys/syscall.h>
  #include <unistd.h>
  int main(int argc, char **argv)
  {
    struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
    execv(argv[1], argv + 1);
    return 1;
  }
`;

/** The product with programs that the kernel refuses; returns the path of its entry. */
function copyWithRefusedPrograms(folder: string): string {
  const repository = join(import.meta.dirname, '../..');
  cpSync(join(repository, 'src'), join(folder, 'src'), { recursive: true });
  cpSync(join(repository, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
  const native = join(folder, 'dist/native');
  cpSync(join(repository, 'dist/native'), native, { recursive: true });
  writeFileSync(join(native, 'nmi.bpf.o'), compileRefusedPrograms(folder));
  return join(folder, 'src/main.ts');
}
