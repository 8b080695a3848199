import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import {
  removeBootGuard,
  renderBootGuard,
  writeBootGuard,
} from '../../../src/redirect/host/boot-guard.ts';
import { collectErrors } from '../../../src/redirect/host/collect-errors.ts';
import {
  createHost,
  failureOf,
  missingTool,
  outputOf,
  type ToolResult,
} from '../../../src/redirect/host/command.ts';
import { diffGuard, ensureGuard, removeGuard } from '../../../src/redirect/host/guard.ts';
import {
  describeLink,
  diffLink,
  ensureLink,
  listLinks,
  nodeAddresses,
  parseLinks,
  removeLink,
  type NodeLink,
} from '../../../src/redirect/host/link.ts';
import { createMutex } from '../../../src/redirect/host/mutex.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';
import { goodRules, ok, refuse, scripted, type ScriptedHost } from '../../support/scripted-host.ts';

describe('running a tool', () => {
  const host = createHost({ timeoutMs: 10_000 });
  const node = process.execPath;

  it('returns its output and exit code', async () => {
    const result = await host.run(node, [
      '-e',
      'console.log(1); console.error(2); process.exit(7)',
    ]);
    assert.deepEqual(result, { kind: 'exited', exitCode: 7, stdout: '1\n', stderr: '2\n' });
  });

  it('writes its input', async () => {
    const result = await host.run(node, ['-e', 'process.stdin.pipe(process.stdout)'], '*nat\n');
    assert.equal(outputOf('echo', node, result), '*nat\n');
  });

  it('survives a tool that does not read its input', async () => {
    const result = await host.run('true', [], 'x'.repeat(1 << 20));
    assert.equal(result.kind, 'exited');
  });

  it('kills a tool that does not end', async () => {
    const quick = createHost({ timeoutMs: 150 });
    const startMs = performance.now();
    const result = await quick.run('sleep', ['60']);
    assert.deepEqual(result, { kind: 'failed', code: 'TIMEOUT', why: 'did not end in 150 ms' });
    assert.equal(failureOf('wait', 'sleep', result)?.code, 'TIMEOUT');
    assert.ok(performance.now() - startMs < 10_000);
  });

  it('ends a tool that floods its output', async () => {
    const result = await host.run('yes', []);
    assert.match(
      String(failureOf('read', 'yes', result)),
      /^RedirectError: read: yes was ended by .*MAXBUFFER/,
    );
  });

  it('reports a tool that is ended, or may not be executed', async () => {
    const killed = await host.run(node, ['-e', 'process.kill(process.pid, "SIGTERM")']);
    assert.equal(
      String(failureOf('end', 'node', killed)),
      'RedirectError: end: node was ended by SIGTERM',
    );
    const file = await host.run('/proc/self/status', []);
    assert.equal(failureOf('start', 'status', file)?.code, 'NOT_PERMITTED');
  });

  it('reports a missing tool', async () => {
    const result = await host.run('nmi-no-such-tool', []);
    assert.deepEqual(result, missingTool);
    assert.throws(() => outputOf('probe', 'nmi-no-such-tool', result), {
      name: 'RedirectError',
      code: 'TOOL_MISSING',
      step: 'probe',
    });
  });

  it('gives a tool the C locale, sbin, and nothing secret', async () => {
    const bare = createHost({
      timeoutMs: 10_000,
      env: { PATH: '/usr/bin:/bin', LANG: 'de_DE', SECRET: 'x', XTABLES_LOCKFILE: '/tmp/lock' },
    });
    const printed = outputOf('env', 'env', await bare.run('env', []));
    assert.deepEqual(printed.trim().split('\n').toSorted(), [
      'LC_ALL=C',
      'PATH=/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin',
      'XTABLES_LOCKFILE=/tmp/lock',
    ]);
  });

  it('reads a file, and an absent one as nothing', async () => {
    assert.match((await host.read('/proc/self/status')) ?? '', /^Name:/);
    assert.equal(await host.read('/proc/nmi-no-such-file'), undefined);
  });
});

describe('the output of a tool becomes a code', () => {
  const exited = (exitCode: number, stderr: string): ToolResult => ({
    kind: 'exited',
    exitCode,
    stdout: '',
    stderr,
  });
  const cases: readonly (readonly [string, ToolResult, string | undefined])[] = [
    ['ip', exited(0, 'a warning'), undefined],
    ['iptables-restore', exited(4, 'Another app is currently holding the xtables lock.'), 'BUSY'],
    ['iptables-restore', exited(4, ''), 'BUSY'],
    [
      'iptables-nft-save',
      exited(
        4,
        'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)',
      ),
      'NOT_PERMITTED',
    ],
    ['ip', exited(2, 'RTNETLINK answers: Operation not permitted'), 'NOT_PERMITTED'],
    ['ip', exited(2, 'RTNETLINK answers: Operation not supported'), 'UNSUPPORTED'],
    ['ip', exited(2, 'Error: Unknown device type.'), 'UNSUPPORTED'],
    ['ip', exited(2, 'RTNETLINK answers: File exists'), 'BUSY'],
    ['ip', exited(4, 'something else'), 'TOOL_FAILED'],
    [
      'iptables-legacy-restore',
      exited(
        3,
        "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
      ),
      'UNSUPPORTED',
    ],
    // No modprobe in the image, modprobe without permission, modprobe without a file: iptables
    // 1.8.9.
    [
      'iptables-legacy-save',
      exited(
        1,
        'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)\nPerhaps iptables or your kernel needs to be upgraded.',
      ),
      'UNSUPPORTED',
    ],
    [
      'iptables-legacy-restore',
      exited(
        1,
        "modprobe: ERROR: could not insert 'ip_tables': Operation not permitted\niptables-legacy-restore v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)",
      ),
      'UNSUPPORTED',
    ],
    // A kernel without nf_tables.
    [
      'iptables-nft-save',
      exited(
        4,
        'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument',
      ),
      'UNSUPPORTED',
    ],
    ['iptables-legacy-restore', exited(1, 'iptables-restore: line 4 failed'), 'TOOL_FAILED'],
    // Its exit code for a kernel of another version, whatever it prints.
    ['iptables-legacy-restore', exited(3, 'xtables version mismatch'), 'UNSUPPORTED'],
    ['ip', exited(3, 'something else'), 'TOOL_FAILED'],
    ['ip', { kind: 'failed', code: 'TIMEOUT', why: 'did not end' }, 'TIMEOUT'],
  ];
  for (const [tool, result, code] of cases) {
    const told = result.kind === 'exited' ? `${result.exitCode} "${result.stderr}"` : result.why;
    it(`${tool}: ${told} is ${code ?? 'success'}`, () => {
      assert.equal(failureOf('step', tool, result)?.code, code);
    });
  }

  it('keeps the reason and drops the line that only announces a version', () => {
    const stderr = 'iptables-nft-restore v1.8.9 (nf_tables): \nline 2: CHAIN_DEL failed\n';
    const failure = failureOf('write rules', 'iptables-nft-restore', exited(1, stderr));
    assert.equal(
      failure?.message,
      'write rules: iptables-nft-restore exited with 1: line 2: CHAIN_DEL failed',
    );
  });
});

describe('an operation of several steps', () => {
  it('continues after one that fails, and reports the first failure at the end', async () => {
    const errors = collectErrors();
    const ran: string[] = [];
    const fail = (text: string) => async () => {
      ran.push(text);
      throw new RangeError(text);
    };
    errors.throwFirst();
    assert.equal(await errors.run(fail('one')), undefined);
    assert.equal(await errors.run(async () => 'value'), 'value');
    assert.equal(await errors.run(fail('two')), undefined);
    assert.deepEqual(ran, ['one', 'two']);
    assert.throws(() => errors.throwFirst(), /RangeError: one/);
  });
});

describe('queued operations', () => {
  it('run one after the other, also after one that failed', async () => {
    const serialize = createMutex();
    const events: string[] = [];
    const work = (name: string, error?: Error) =>
      serialize(async () => {
        events.push(`${name} begins`);
        await new Promise(setImmediate);
        events.push(`${name} ends`);
        if (error !== undefined) throw error;
        return name;
      });
    const [first, second, third] = await Promise.allSettled([
      work('first'),
      work('second', new RangeError('second')),
      work('third'),
    ]);
    assert.deepEqual(
      events,
      ['first', 'second', 'third'].flatMap((name) => [`${name} begins`, `${name} ends`]),
    );
    assert.deepEqual(
      [first.status, second.status, third.status],
      ['fulfilled', 'rejected', 'fulfilled'],
    );
  });
});

describe('links of the node', () => {
  const ip = '169.254.25.79';

  function createLink(fields: Partial<NodeLink> = {}): NodeLink {
    return { name: 'nmi0', kind: 'dummy', master: undefined, up: true, ipv4: [ip], ...fields };
  }

  const uplink = createLink({ name: 'eth0', kind: undefined, ipv4: ['10.224.0.4'] });
  const port = createLink({ name: 'veth1', kind: 'veth', master: 'nmi0', ipv4: [] });

  /** As `ip` prints it. */
  function printLinks(links: readonly NodeLink[]): string {
    return JSON.stringify(
      links.map(({ name, kind, master, up, ipv4 }) => ({
        ifname: name,
        flags: up ? ['BROADCAST', 'UP'] : ['BROADCAST'],
        ...(kind === undefined ? {} : { linkinfo: { info_kind: kind } }),
        ...(master === undefined ? {} : { master }),
        addr_info: ipv4.map((local) => ({ family: 'inet', local })),
      })),
    );
  }

  /** A node with these links; or one without dummy links in its kernel. */
  function nodeOf(links: readonly NodeLink[], hasDummy = true): ScriptedHost {
    return scripted({
      ip: (args) => {
        if (args === '-j -d addr show') return ok(printLinks(links));
        if (args.endsWith('type dummy') && !hasDummy)
          return refuse(2, 'Error: Unknown device type.');
        return ok();
      },
    });
  }

  function changesOf({ log }: ScriptedHost): readonly string[] {
    return log.filter((line) => !line.includes('show'));
  }

  describe('reading the links of a node', () => {
    it('never throws', () => {
      const text = fc.oneof(
        fc.string(),
        fc.json(),
        fc.json().map((json) => `[${json}]`),
      );
      fc.assert(fc.property(text, (some) => void parseLinks(some)));
    });

    it('distinguishes an empty answer from one that is not JSON', async () => {
      assert.deepEqual(parseLinks('[{},{}]')?.length, 2);
      assert.deepEqual(parseLinks(' \n'), []);
      assert.deepEqual(parseLinks('[null,"b",[2],3]'), []);
      for (const text of ['{"ifname":"lo"}', 'null', '7', '[']) {
        assert.equal(parseLinks(text), undefined, text);
      }
      const old = scripted({ ip: () => ok('1: lo: <LOOPBACK,UP>') });
      await assert.rejects(listLinks(old), { code: 'TOOL_FAILED', step: 'read links' });
    });

    it('reads kind, port and address of links', () => {
      const links = parseLinks(
        JSON.stringify([
          {
            ifname: 'nmi0',
            flags: ['BROADCAST', 'UP'],
            linkinfo: { info_kind: 'bridge' },
            addr_info: [
              { family: 'inet', local: ip, prefixlen: 32 },
              { family: 'inet6', local: 'fe80::1', prefixlen: 64 },
              { family: 'inet' },
              'no address',
            ],
          },
          { ifname: 'eth0', flags: [], master: 'br0', addr_info: [] },
        ]),
      );
      assert.deepEqual(links, [
        { name: 'nmi0', kind: 'bridge', master: undefined, up: true, ipv4: [ip] },
        { name: 'eth0', kind: undefined, master: 'br0', up: false, ipv4: [] },
      ]);
      assert.deepEqual(parseLinks('[{}]'), [
        { name: '', kind: undefined, master: undefined, up: false, ipv4: [] },
      ]);
      assert.deepEqual([...nodeAddresses(links ?? [])], [ip]);
    });
  });

  describe('the agent’s own link', () => {
    it('is made where there is none, with the address for this host only', async () => {
      const host = nodeOf([uplink]);
      assert.deepEqual(await ensureLink(host, ip), [
        'link nmi0 made, a dummy',
        `address ${ip} added to nmi0`,
      ]);
      assert.deepEqual(changesOf(host), [
        'ip link add nmi0 type dummy',
        `ip addr add ${ip}/32 dev nmi0 scope host`,
        'ip link set nmi0 up',
      ]);
    });

    it('is a bridge where the kernel has no dummy links', async () => {
      const host = nodeOf([uplink], false);
      assert.ok((await ensureLink(host, ip)).includes('link nmi0 made, a bridge'));
      assert.ok(changesOf(host).includes('ip link add nmi0 type bridge'));
    });

    it('gets no address when a bridge cannot be made either', async () => {
      const host = scripted({
        ip: (args) => (args.includes('show') ? ok('[]') : refuse(2, 'Error: Unknown device type.')),
      });
      await assert.rejects(ensureLink(host, ip), { code: 'UNSUPPORTED' });
      assert.deepEqual(changesOf(host), [
        'ip link add nmi0 type dummy',
        'ip link add nmi0 type bridge',
      ]);
    });

    it('is not tried as a bridge when making it is not permitted', async () => {
      const host = scripted({
        ip: (args) =>
          args.includes('show')
            ? ok('[]')
            : refuse(2, 'RTNETLINK answers: Operation not permitted'),
      });
      await assert.rejects(ensureLink(host, ip), { code: 'NOT_PERMITTED', step: 'ip link add' });
      assert.deepEqual(changesOf(host), ['ip link add nmi0 type dummy']);
    });

    it('gets what it lacks, and nothing that it has', async () => {
      const cases: readonly (readonly [NodeLink, readonly string[]])[] = [
        [createLink(), []],
        [createLink({ kind: 'bridge' }), []],
        [createLink({ up: false }), ['link nmi0 set up']],
        [createLink({ ipv4: ['192.0.2.1'] }), [`address ${ip} added to nmi0`]],
        [createLink({ up: false, ipv4: [] }), [`address ${ip} added to nmi0`, 'link nmi0 set up']],
      ];
      for (const [link, changed] of cases) {
        const host = nodeOf([uplink, link]);
        assert.deepEqual(await ensureLink(host, ip), changed);
        assert.equal(changesOf(host).length, changed.length);
      }
    });

    it('is not needed for an address of the node', async () => {
      const host = nodeOf([uplink]);
      assert.deepEqual(await ensureLink(host, '10.224.0.4'), []);
      assert.deepEqual(changesOf(host), []);
    });

    it('is not taken from another owner: another kind, or a bridge with ports', async () => {
      for (const links of [
        [createLink({ kind: 'vxlan' })],
        [createLink({ kind: undefined })],
        [createLink({ kind: 'bridge' }), port],
        [createLink({ kind: 'bridge', ipv4: [] }), port],
      ]) {
        const host = nodeOf([uplink, ...links]);
        assert.deepEqual(await ensureLink(host, ip), []);
        await removeLink(host, ip);
        assert.deepEqual(changesOf(host), [], 'left alone');
        const [problem = ''] = diffLink(links, ip);
        assert.match(problem, /^link nmi0 is not the agent's: it is a (vxlan|device|bridge)$/);
      }
    });

    it('is removed only with our address on it', async () => {
      const ours = nodeOf([uplink, createLink()]);
      await removeLink(ours, ip);
      assert.deepEqual(changesOf(ours), ['ip link del nmi0']);
      for (const links of [[uplink], [uplink, createLink({ ipv4: ['192.0.2.1'] })]]) {
        const host = nodeOf(links);
        await removeLink(host, ip);
        assert.deepEqual(changesOf(host), []);
      }
    });

    it('is reported when it cannot be removed', async () => {
      const host = scripted({
        ip: (args) =>
          args.includes('show')
            ? ok(printLinks([createLink()]))
            : refuse(2, 'RTNETLINK answers: Operation not permitted'),
      });
      await assert.rejects(removeLink(host, ip), { code: 'NOT_PERMITTED', step: 'ip link del' });
    });
  });

  describe('a problem with the listen address', () => {
    const diff = (links: readonly NodeLink[], address = ip) => diffLink(links, address);

    it('is none when a link that is up has it', () => {
      assert.deepEqual(diff([uplink, createLink()]), []);
      assert.deepEqual(diff([uplink], '10.224.0.4'), []);
      assert.deepEqual(diff([{ ...uplink, up: false }], '10.224.0.4'), []);
    });

    it('is what our link lacks', () => {
      assert.deepEqual(diff([uplink]), ['link nmi0 missing']);
      assert.deepEqual(diff([createLink({ up: false })]), ['link nmi0 is down']);
      assert.deepEqual(diff([createLink({ ipv4: [] })]), [`address ${ip} missing from nmi0`]);
      assert.deepEqual(diff([createLink({ up: false, ipv4: [] })]), [
        `address ${ip} missing from nmi0`,
        'link nmi0 is down',
      ]);
    });
  });

  describe('where the listen address is', () => {
    it('is described with the link and its kind', () => {
      assert.equal(describeLink([uplink], ip), `address ${ip} on no link`);
      assert.equal(describeLink([createLink()], '10.0.0.9'), 'address 10.0.0.9 on no link');
      assert.equal(describeLink([uplink], '10.224.0.4'), 'address 10.224.0.4 on eth0 (device)');
      assert.equal(describeLink([createLink({ up: false })], ip), `address ${ip} on nmi0 (dummy)`);
    });
  });
});

describe('policy rules', () => {
  const metadataIp = '169.254.169.254';
  const without = (rule: RegExp): string => goodRules.replace(rule, '');

  /** A node with these rules, which can refuse one command. */
  function nodeOf(
    rules: string,
    refusal?: { readonly of: string; readonly stderr: string },
  ): ScriptedHost {
    return scripted({
      ip: (args) => {
        if (args === '-4 rule show') return ok(rules);
        return refusal !== undefined && args.includes(refusal.of)
          ? refuse(2, refusal.stderr)
          : ok();
      },
    });
  }

  function changesOf({ log }: ScriptedHost): readonly string[] {
    return log.filter((line) => !line.includes('show'));
  }

  const noPolicyRouting = () =>
    scripted({ ip: () => refuse(2, 'RTNETLINK answers: Operation not supported') });

  describe('the guard', () => {
    it('is complete with its four rules, each for the metadata address', async () => {
      assert.deepEqual(await diffGuard(nodeOf(goodRules), metadataIp), []);
      assert.deepEqual(await diffGuard(nodeOf(goodRules), '192.0.2.1'), [
        'guard rule missing: pref 81 to 192.0.2.1 nop',
        'guard rule missing: pref 79 to 192.0.2.1 iif lo goto 81',
        'guard rule missing: pref 80 to 192.0.2.1 prohibit',
        'guard rule missing: pref 82 from 192.0.2.1 blackhole',
      ]);
    });

    for (const [rule, other] of [
      ['80', '90:\tfrom all to 169.254.169.254 prohibit'],
      ['80', '80:\tfrom all to 169.254.169.254 iif lo prohibit'],
      ['80', '80:\tfrom all to 169.254.169.254 unreachable'],
      ['80', '80:\tfrom all to 169.254.169.0/24 prohibit'],
      ['80', '80:\tfrom 10.0.0.1 to 169.254.169.254 prohibit'],
      ['80', '80:\tnot from all to 169.254.169.254 prohibit'],
      ['80', '80:\tfrom all to 169.254.169.254 fwmark 0x40/0x40 prohibit'],
      ['82', '82:\tfrom all to 169.254.169.254 blackhole'],
      ['82', '82:\tfrom 169.254.169.254 iif eth0 blackhole'],
    ] as const) {
      it(`takes "${other}" for another program's`, async () => {
        const rules = goodRules.replace(new RegExp(`^${rule}:.*$`, 'm'), other);
        const [problem, ...more] = await diffGuard(nodeOf(rules), metadataIp);
        assert.match(problem ?? '', new RegExp(`^guard rule missing: pref ${rule} `));
        assert.deepEqual(more, []);
      });
    }

    it('is built with the bypass before the barrier', async () => {
      const host = nodeOf('');
      assert.deepEqual(await ensureGuard(host, metadataIp), [
        'guard rule 81 added',
        'guard rule 79 added',
        'guard rule 80 added',
        'guard rule 82 added',
      ]);
      assert.deepEqual(changesOf(host), [
        `ip rule add pref 81 to ${metadataIp} nop`,
        `ip rule add pref 79 to ${metadataIp} iif lo goto 81`,
        `ip rule add pref 80 to ${metadataIp} prohibit`,
        `ip rule add pref 82 from ${metadataIp} blackhole`,
      ]);
    });

    it('gets only the rule that is missing', async () => {
      const host = nodeOf(without(/^80:.*\n/m));
      assert.deepEqual(await ensureGuard(host, metadataIp), ['guard rule 80 added']);
      assert.equal(changesOf(host).length, 1);
    });

    it('gets no barrier when the kernel refuses the bypass', async () => {
      const stderr = 'RTNETLINK answers: Operation not supported';
      const host = nodeOf('', { of: 'goto', stderr });
      assert.deepEqual(await ensureGuard(host, metadataIp), ['guard rule 81 added']);
      assert.ok(!changesOf(host).some((line) => line.includes('prohibit')));
    });

    it('accepts that another process has added a rule meanwhile, and no other refusal', async () => {
      const quicker = nodeOf('', { of: 'goto', stderr: 'RTNETLINK answers: File exists' });
      assert.deepEqual(await ensureGuard(quicker, metadataIp), [
        'guard rule 81 added',
        'guard rule 80 added',
        'guard rule 82 added',
      ]);
      const stderr = 'RTNETLINK answers: Operation not permitted';
      await assert.rejects(ensureGuard(nodeOf('', { of: 'goto', stderr }), metadataIp), {
        code: 'NOT_PERMITTED',
      });
    });

    it('is removed barrier first, and only the rules that exist', async () => {
      const host = nodeOf(goodRules);
      assert.deepEqual(await removeGuard(host, metadataIp), [
        'guard rule 82 removed',
        'guard rule 80 removed',
        'guard rule 79 removed',
        'guard rule 81 removed',
      ]);
      assert.deepEqual(changesOf(host)[1], `ip rule del pref 80 to ${metadataIp} prohibit`);
      const half = nodeOf(without(/^(?:79|81|82):.*\n/gm));
      assert.deepEqual(await removeGuard(half, metadataIp), ['guard rule 80 removed']);
      assert.equal(changesOf(half).length, 1);
    });

    it('is impossible, but not a failure, where the kernel has no policy routing', async () => {
      assert.deepEqual(await diffGuard(noPolicyRouting(), metadataIp), [
        'guard impossible: the kernel has no policy routing',
      ]);
      assert.deepEqual(await ensureGuard(noPolicyRouting(), metadataIp), []);
      assert.deepEqual(await removeGuard(noPolicyRouting(), metadataIp), []);
    });
  });
});

describe('the guard at boot', () => {
  const metadataIp = '169.254.169.254';
  const unit = 'nmi-guard.service';

  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nmi-boot-guard-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('is shipped as the agent writes it', () => {
    const shipped = join(import.meta.dirname, '../../../deploy/boot-guard', unit);
    assert.equal(readFileSync(shipped, 'utf8'), renderBootGuard(metadataIp));
  });

  it('adds the bypass before the barrier, before the kubelet starts', () => {
    const text = renderBootGuard('10.0.0.1');
    assert.match(text, /^Before=kubelet\.service$/m);
    const rules = [...text.matchAll(/^ExecStart=-\/usr\/bin\/env ip (.*)$/gm)].map(
      ([, rule]) => rule,
    );
    assert.deepEqual(rules, [
      'rule add pref 81 to 10.0.0.1 nop',
      'rule add pref 79 to 10.0.0.1 iif lo goto 81',
      'rule add pref 80 to 10.0.0.1 prohibit',
    ]);
  });

  it('is written once, and wanted by the kubelet', () => {
    writeBootGuard(folder, metadataIp);
    assert.equal(readFileSync(join(folder, unit), 'utf8'), renderBootGuard(metadataIp));
    assert.equal(readlinkSync(join(folder, 'kubelet.service.wants', unit)), `../${unit}`);
    assert.equal(statSync(join(folder, unit)).mode & 0o777, 0o644);
    const written = statSync(join(folder, unit)).ino;
    writeBootGuard(folder, metadataIp);
    assert.equal(statSync(join(folder, unit)).ino, written);
  });

  it('is written again where it was changed', () => {
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, unit), 'something else');
    rmSync(join(folder, 'kubelet.service.wants', unit));
    writeBootGuard(folder, metadataIp);
    assert.equal(readFileSync(join(folder, unit), 'utf8'), renderBootGuard(metadataIp));
    assert.equal(readlinkSync(join(folder, 'kubelet.service.wants', unit)), `../${unit}`);
  });

  it('names the folder that it cannot be written to', () => {
    const missing = join(folder, 'missing');
    assert.throws(() => writeBootGuard(missing, metadataIp), {
      name: RedirectError.name,
      message: /write nmi-guard\.service in .*missing: ENOENT/,
    });
  });

  it('is removed, and leaves the files of others', () => {
    removeBootGuard(folder);
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, 'other.service'), '');
    removeBootGuard(folder);
    assert.deepEqual(readdirSync(folder), ['other.service']);
    writeBootGuard(folder, metadataIp);
    writeFileSync(join(folder, 'kubelet.service.wants/other.service'), '');
    removeBootGuard(folder);
    assert.deepEqual(readdirSync(join(folder, 'kubelet.service.wants')), ['other.service']);
    mkdirSync(join(folder, unit));
    assert.throws(() => removeBootGuard(folder), RedirectError);
  });
});
