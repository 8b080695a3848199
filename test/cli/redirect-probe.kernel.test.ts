import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openCgroupTree, whyNoBpfTests } from '../redirect/cgroup-ground.ts';
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
    words: readonly string[],
    environment: NodeJS.ProcessEnv = {},
  ) {
    return spawnSync(
      'nsenter',
      [
        ...[`--net=/run/netns/${space.name}`, '--', 'setpriv'],
        ...[`--bounding-set=-all${capabilities}`, '--inh-caps=-all', '--'],
        ...[process.execPath, main, 'redirect', 'probe', ...words],
      ],
      { encoding: 'utf8', timeout: 60_000, env: { ...process.env, ...environment } },
    );
  }
  function report(capabilities: string, environment: NodeJS.ProcessEnv = {}): Report {
    const { stdout, stderr } = probe(capabilities, ['--output=json'], environment);
    assert.equal(stderr, '');
    return JSON.parse(stdout) as Report;
  }
  function supportOf({ modes }: Report, part: string): string | undefined {
    return modes.flatMap(({ findings }) => findings).find((each) => each.part === part)?.support;
  }

  it('finds what the tests beside it use, and leaves nothing behind', async () => {
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

  it('says what auto takes and why, without pods or tree', { skip: whyNoBpfTests() }, () => {
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

  it('takes no folder for a cgroup2 tree that is none', () => {
    const plain = mkdtempSync(join(tmpdir(), 'nmi-test-tree-'));
    after(() => {
      rmSync(plain, { recursive: true });
    });
    for (const folder of ['/proc', plain]) {
      const found = report(',+net_admin,+bpf', { NMI_CGROUP_ROOT: folder });
      assert.equal(supportOf(found, 'cgroup2 tree'), 'unsupported', folder);
    }
  });

  it('says of the BPF file system what auto goes by', () => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-pins-'));
    after(() => {
      rmSync(folder, { recursive: true });
    });
    const part = 'BPF file system';
    const inside = { NMI_BPF_PIN_FOLDER: `${folder}/nmi` };
    assert.equal(supportOf(report(',+sys_admin', inside), part), 'supported');
    assert.equal(supportOf(report('', inside), part), 'unknown');
    // A mount would hide what is in it.
    writeFileSync(join(folder, 'file'), '');
    assert.equal(supportOf(report(',+sys_admin', inside), part), 'unsupported');
    assert.equal(supportOf(report('', inside), part), 'unsupported');
    const nowhere = { NMI_BPF_PIN_FOLDER: `${folder}/none/nmi` };
    assert.equal(supportOf(report(',+sys_admin', nowhere), part), 'unsupported');
  });

  it('tells what it cannot know from what is not there', () => {
    const blind = report('');
    assert.equal(blind.works, false);
    assert.equal(supportOf(blind, 'iptables nft'), 'unknown');
    assert.equal(supportOf(blind, 'programs at connect'), 'unknown');
    const text = probe('', []);
    assert.equal(text.status, 1);
    assert.match(text.stdout, /iptables in use +unknown +not to be told: CAP_NET_ADMIN is needed/);
    assert.match(text.stdout, /no way of redirecting is known to work here\n$/);
  });

  it('takes no other output than two', () => {
    const run = probe('', ['--output=yaml']);
    assert.equal(run.status, 2);
    assert.match(run.stderr, /allowed: text, json/);
  });
});
