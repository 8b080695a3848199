import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openBpfFolder, openCgroupTree, whyNoBpfTests } from '../redirect/cgroup-fixture.ts';
import { compileRefusedPrograms } from '../redirect/refused-programs.ts';
import { openNamespace, sweepDeadNamespaces, whyNoKernelTests } from '../redirect/namespaces.ts';

const main = join(import.meta.dirname, '..', '..', '..', 'src', 'main.ts');
const skip = await whyNoKernelTests('iptables-nft', 'iptables-legacy', 'setpriv', 'nsenter');

interface Report {
  readonly mode: string;
  readonly why: string;
}

const rights = ',+net_admin,+bpf,+sys_admin';

describe('the mode that auto chooses', { skip }, async () => {
  if (skip !== false) return;
  await sweepDeadNamespaces();
  const space = await openNamespace();
  after(() => space[Symbol.asyncDispose]());

  function verify(
    environment: NodeJS.ProcessEnv,
    { capabilities = rights, through = [] as readonly string[], sources = main } = {},
  ): Report {
    const { stdout, stderr } = spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${space.name}`, '--', 'setpriv'],
        ...[`--bounding-set=-all${capabilities}`, '--inh-caps=-all', '--', ...through],
        ...[process.execPath, sources, 'redirect', 'verify'],
      ],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, ...environment } },
    );
    assert.equal(stderr, '');
    const [, mode = '', why = ''] = /^(\w+): .*\n {2}why this one: (.*)$/m.exec(stdout) ?? [];
    return { mode, why };
  }

  it('leaves nothing behind', async () => {
    const before = await space.run('iptables-nft-save');
    verify({});
    assert.equal(await space.run('iptables-nft-save'), before);
    // Not there without legacy tables in the kernel.
    const tables = await space.run('cat /proc/net/ip_tables_names').catch(() => '');
    assert.equal(tables.trim(), '');
    assert.equal((await space.run('ip -o link')).trim().split('\n').length, 1);
  });

  it('is iptables without pods or tree', { skip: whyNoBpfTests() }, () => {
    const tree = openCgroupTree();
    try {
      const { mode, why } = verify({ NMI_CGROUP_ROOT: tree.path });
      assert.equal(mode, 'iptables');
      assert.equal(why, `no eBPF: no pods in the cgroup2 tree at ${tree.path}`);
    } finally {
      tree.close();
    }
    const plain = mkdtempSync(join(tmpdir(), 'nmi-test-tree-'));
    after(() => rmSync(plain, { recursive: true }));
    for (const folder of ['/proc', plain]) {
      const { mode, why } = verify({ NMI_CGROUP_ROOT: folder });
      assert.equal(mode, 'iptables');
      assert.match(why, new RegExp(`no cgroup2 tree is at ${folder} or mounted below it$`));
    }
  });

  it('is iptables where the kernel refuses the programs', { skip: whyNoBpfTests() }, () => {
    const work = mkdtempSync(join(tmpdir(), 'nmi-test-refused-'));
    const tree = openCgroupTree();
    const bpf = openBpfFolder();
    try {
      tree.make('kubepods');
      const environment = {
        NMI_CGROUP_ROOT: tree.path,
        NMI_BPF_PIN_FOLDER: join(bpf.path, 'nmi'),
      };
      assert.equal(verify(environment).mode, 'ebpf');
      const withoutRight = verify(environment, { capabilities: ',+net_admin' });
      assert.match(withoutRight.why, /^no eBPF: bpf\(2\) is not permitted: it takes CAP_BPF/);
      const sources = copyWithRefusedPrograms(work);
      const { mode, why } = verify(environment, { sources });
      assert.equal(mode, 'iptables');
      assert.match(why, /^no eBPF: the kernel refuses the programs: .*invalid mem access/);
    } finally {
      bpf.close();
      tree.close();
      rmSync(work, { recursive: true });
    }
  });

  it('is iptables where the kernel has no bpf(2)', { skip: whyNoBpfTests() }, () => {
    const work = mkdtempSync(join(tmpdir(), 'nmi-test-nobpf-'));
    const tree = openCgroupTree();
    try {
      tree.make('kubepods');
      const withoutBpf = join(work, 'without-bpf');
      writeFileSync(`${withoutBpf}.c`, WITHOUT_BPF);
      execFileSync('cc', ['-o', withoutBpf, `${withoutBpf}.c`]);
      const { mode, why } = verify({ NMI_CGROUP_ROOT: tree.path }, { through: [withoutBpf] });
      assert.equal(mode, 'iptables');
      assert.match(why, /^no eBPF: the kernel refuses the programs: /);
    } finally {
      tree.close();
      rmSync(work, { recursive: true });
    }
  });

  it('is iptables where nothing can be pinned', { skip: whyNoBpfTests() }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-pins-'));
    const tree = openCgroupTree();
    try {
      tree.make('kubepods');
      const choose = (pins: string, capabilities: string) =>
        verify({ NMI_CGROUP_ROOT: tree.path, NMI_BPF_PIN_FOLDER: pins }, { capabilities });
      const { mode, why } = choose(`${folder}/nmi`, rights);
      assert.equal(mode, 'iptables');
      assert.match(why, /^no eBPF: .*no BPF file system is mounted at /);
    } finally {
      tree.close();
      rmSync(folder, { recursive: true });
    }
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
  const repository = join(import.meta.dirname, '../../..');
  cpSync(join(repository, 'src'), join(folder, 'src'), { recursive: true });
  cpSync(join(repository, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
  const native = join(folder, 'dist/native');
  cpSync(join(repository, 'dist/native'), native, { recursive: true });
  writeFileSync(join(native, 'nmi.bpf.o'), compileRefusedPrograms(folder));
  return join(folder, 'src/main.ts');
}
