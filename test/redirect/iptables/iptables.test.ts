/** What the composition does when tools are missing, refuse, or are beaten by another writer. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Host, ToolResult } from '../../../src/redirect/host/command.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { noRedirect } from '../../../src/redirect/none.ts';
import { RedirectError } from '../../../src/redirect/redirect.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';

const ok = (stdout = ''): ToolResult => ({ kind: 'exited', exitCode: 0, stdout, stderr: '' });
const refuse = (exitCode: number, stderr: string): ToolResult => ({
  kind: 'exited',
  exitCode,
  stdout: '',
  stderr,
});
const MISSING: ToolResult = { kind: 'missing' };

const EMPTY_NAT = '*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n';
const GOOD_NAT = `*nat
:PREROUTING ACCEPT [0:0]
:aad-metadata - [0:0]
-A PREROUTING -j aad-metadata
-A aad-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579
-A aad-metadata -j RETURN
COMMIT
`;
const GOOD_LINKS = JSON.stringify([
  {
    ifname: 'nmi0',
    flags: ['UP'],
    linkinfo: { info_kind: 'dummy' },
    addr_info: [{ family: 'inet', local: '169.254.25.79' }],
  },
]);
const GOOD_RULES = JSON.stringify([
  { priority: 79, src: 'all', dst: '169.254.169.254', iif: 'lo', goto: 81 },
  { priority: 80, src: 'all', dst: '169.254.169.254', action: 'prohibit' },
  { priority: 81, src: 'all', dst: '169.254.169.254', nop: null },
]);

type Answer = (args: string, input: string) => ToolResult;

/** A node that is made of answers; keeps what it was asked to do. */
function scripted(answers: Readonly<Record<string, Answer>>): Host & { readonly log: string[] } {
  const log: string[] = [];
  return {
    log,
    run: (tool, args, options) => {
      log.push([tool, ...args].join(' '));
      return Promise.resolve(answers[tool]?.(args.join(' '), options?.input ?? '') ?? MISSING);
    },
    read: (path) => Promise.resolve(path.endsWith('ip_tables_names') ? '' : undefined),
    cutFlows: () =>
      Promise.reject(new RedirectError('UNSUPPORTED', 'list flows', 'Protocol not supported')),
  };
}

const goodIp: Answer = (args) => {
  if (args.includes('addr show')) return ok(GOOD_LINKS);
  return args.includes('rule show') ? ok(GOOD_RULES) : ok();
};

describe('the iptables redirect on a node that refuses', () => {
  it('says BUSY while another program holds the lock, and works right afterwards', async () => {
    let refusals = 3;
    let nat = EMPTY_NAT;
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': () => {
        refusals -= 1;
        if (refusals >= 0) return refuse(4, 'Another app is currently holding the xtables lock.');
        nat = GOOD_NAT;
        return ok();
      },
    });
    const redirect = openIptablesRedirect({ host });
    for (let count = 0; count < 3; count += 1) {
      await assert.rejects(redirect.install(), { name: 'RedirectError', code: 'BUSY' });
    }
    const status = await redirect.install();
    assert.equal(status.state, 'active');
    assert.deepEqual(status.changed, ['chain aad-metadata made', 'jump added']);
    assert.match(status.detail, /older flows not cut: list flows: Protocol not supported/);
  });

  it('tries again when another writer came between reading and writing', async () => {
    const others = '-A PREROUTING -p tcp -j ACCEPT\n';
    const jumps = (count: number) =>
      GOOD_NAT.replace(
        '-A PREROUTING -j aad-metadata\n',
        others + '-A PREROUTING -j aad-metadata\n'.repeat(count),
      );
    let nat = jumps(2);
    const scripts: string[] = [];
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': (_, script) => {
        scripts.push(script);
        if (scripts.length > 1) {
          nat = GOOD_NAT;
          return ok();
        }
        nat = jumps(1);
        return refuse(1, 'iptables-nft-restore: line 3 failed: Bad rule');
      },
    });
    assert.equal((await openIptablesRedirect({ host }).install()).state, 'active');
    assert.deepEqual(
      scripts.map((script) => script.match(/^-D/gm)?.length),
      [2, 1],
    );
  });

  it('stops and reports broken when somebody undoes every change', async () => {
    let round = 0;
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => {
        round += 1;
        return ok(`*nat\n${'-A PREROUTING -p tcp -j ACCEPT\n'.repeat(round)}COMMIT\n`);
      },
      'iptables-nft-restore': () => ok(),
    });
    const status = await openIptablesRedirect({ host }).install();
    assert.equal(status.state, 'absent');
    assert.equal(host.log.filter((line) => line.includes('-restore')).length, 3);
  });

  it('names the tool that is missing, and still sets up the guard', async () => {
    const added: string[] = [];
    const host = scripted({
      ip: (args) => {
        if (args.startsWith('rule add')) added.push(args);
        return args.includes('rule show') ? ok('[]') : goodIp(args, '');
      },
    });
    const redirect = openIptablesRedirect({ host });
    await assert.rejects(redirect.install(), { code: 'TOOL_MISSING', step: 'backend' });
    assert.deepEqual(added, [
      'rule add pref 81 to 169.254.169.254 nop',
      'rule add pref 79 iif lo to 169.254.169.254 goto 81',
      'rule add pref 80 to 169.254.169.254 prohibit',
    ]);
    await assert.rejects(redirect.verify(), { code: 'TOOL_MISSING' });
  });

  it('says NOT_PERMITTED without the capability', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('show') ? goodIp(args, '') : refuse(2, 'Operation not permitted'),
      'iptables-nft-save': () => refuse(4, 'Permission denied (you must be root)'),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), { code: 'NOT_PERMITTED' });
  });

  it('says what to install where iptables is older than 1.8', async () => {
    const host = scripted({
      ip: goodIp,
      iptables: () => ok('iptables v1.6.1\n'),
      'iptables-save': () => ok(EMPTY_NAT),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), {
      code: 'TOOL_MISSING',
      message:
        'backend: found iptables v1.6.1, without iptables-nft-save and iptables-legacy-save; ' +
        'install iptables 1.8 or later',
    });
  });

  it('says what to install where the kernel has no nftables and there is no legacy tool', async () => {
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': (args) =>
        args === '--version'
          ? ok('iptables-nft-save v1.8.9 (nf_tables)')
          : refuse(1, 'Protocol not supported'),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), {
      code: 'UNSUPPORTED',
      message: /^backend: .*, and iptables-legacy-save is not on the PATH; install it$/,
    });
  });

  it('reports a kernel without policy routing as a problem of an installed redirect', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('rule')
          ? refuse(2, 'RTNETLINK answers: Operation not supported')
          : goodIp(args, ''),
      'iptables-nft-save': () => ok(GOOD_NAT),
    });
    const status = await openIptablesRedirect({ host }).install();
    assert.deepEqual(status.problems, ['guard impossible: the kernel has no policy routing']);
    assert.equal(status.state, 'broken');
  });

  it('never sets the barrier when the way round it is refused', async () => {
    const host = scripted({
      ip: (args) => {
        if (args.includes('rule show')) return ok('[]');
        if (args.includes('goto')) return refuse(2, 'RTNETLINK answers: Operation not supported');
        return goodIp(args, '');
      },
      'iptables-nft-save': () => ok(GOOD_NAT),
    });
    const status = await openIptablesRedirect({ host }).install();
    assert.equal(status.problems.length, 3);
    assert.ok(!host.log.some((line) => line.includes('prohibit')), host.log.join('\n'));
  });

  it('runs one operation after the other', async () => {
    let running = 0;
    const host = scripted({ ip: goodIp, 'iptables-nft-save': () => ok(GOOD_NAT) });
    const slow: Host = {
      ...host,
      run: async (tool, args, options) => {
        if (args[0] === '--noflush' || tool === 'iptables-nft-save') running += 1;
        assert.ok(running <= 1, 'two at once');
        await new Promise(setImmediate);
        const result = await host.run(tool, args, options);
        if (args[0] === '--noflush' || tool === 'iptables-nft-save') running -= 1;
        return result;
      },
    };
    const redirect = openIptablesRedirect({ host: slow });
    const all = await Promise.all([redirect.install(), redirect.verify(), redirect.install()]);
    assert.deepEqual(
      all.map((status) => status.state),
      ['active', 'active', 'active'],
    );
  });

  it('refuses a target that cannot be written as a rule', () => {
    const host = scripted({});
    for (const wrong of [
      { listenIp: 'fd00::1' },
      { metadataIp: 'metadata' },
      { listenPort: 0 },
      { metadataPort: 65536 },
    ]) {
      const target = { ...DEFAULT_TARGET, ...wrong };
      assert.throws(() => openIptablesRedirect({ host, target }), RangeError);
    }
  });

  it('attests nothing', () => {
    const peer = { remoteIp: '10.0.0.2', remotePort: 1, localIp: '10.0.0.1', localPort: 2 };
    const redirect = openIptablesRedirect({ host: scripted({}) });
    assert.deepEqual(redirect.attest(peer), { kind: 'by-address' });
  });
});

describe('no redirect', () => {
  it('is off, whatever is asked of it', async () => {
    const redirect = noRedirect();
    await redirect.prepare();
    assert.equal((await redirect.install()).state, 'off');
    assert.equal((await redirect.verify()).state, 'off');
    await redirect.remove();
    assert.deepEqual(redirect.mode, 'none');
  });
});
