/** The composed redirect when tools are missing, are refused, or lose a race to another writer. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Host, ToolResult } from '../../../src/redirect/host/command.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import {
  emptyNat,
  goodIp,
  goodNat,
  ok,
  refuse,
  scripted,
  takingTurns,
  type Answer,
} from '../scripted-host.ts';

describe('the iptables redirect on a node that refuses', () => {
  it('reports BUSY while another program holds the lock, and works afterwards', async () => {
    let refusals = 3;
    let nat = emptyNat;
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': () => {
        refusals -= 1;
        if (refusals >= 0) return refuse(4, 'Another app is currently holding the xtables lock.');
        nat = goodNat;
        return ok();
      },
    });
    const redirect = openIptablesRedirect({ host });
    for (let count = 0; count < 3; count += 1) {
      await assert.rejects(redirect.install(), { name: 'RedirectError', code: 'BUSY' });
    }
    const status = await redirect.install();
    assert.equal(status.state, 'active');
    assert.deepEqual(status.changed, ['chain nmi-metadata made', 'jump added']);
    assert.match(status.detail, /older flows not cut: list flows: Protocol not supported/);
  });

  it('tries again when another writer came between reading and writing', async () => {
    const others = '-A PREROUTING -p tcp -j ACCEPT\n';
    const jumps = (count: number) =>
      goodNat.replace(
        '-A PREROUTING -j nmi-metadata\n',
        others + '-A PREROUTING -j nmi-metadata\n'.repeat(count),
      );
    let nat = jumps(2);
    const scripts: string[] = [];
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': (_, script) => {
        scripts.push(script);
        if (scripts.length > 1) {
          nat = goodNat;
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

  it('does not take a fault of its own for another writer', async () => {
    const fault = new TypeError('a fault');
    let nat = emptyNat;
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': () => {
        nat = goodNat;
        throw fault;
      },
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), fault);
  });

  it('stops and reports broken when another process undoes every change', async () => {
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
    await assert.rejects(redirect.install(), { code: 'TOOL_MISSING', step: 'choose backend' });
    assert.deepEqual(added, [
      'rule add pref 81 to 169.254.169.254 nop',
      'rule add pref 79 iif lo to 169.254.169.254 goto 81',
      'rule add pref 80 to 169.254.169.254 prohibit',
      'rule add pref 82 from 169.254.169.254 blackhole',
    ]);
    await assert.rejects(redirect.verify(), { code: 'TOOL_MISSING' });
  });

  it('reports NOT_PERMITTED without the capability', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('show') ? goodIp(args, '') : refuse(2, 'Operation not permitted'),
      'iptables-nft-save': () => refuse(4, 'Permission denied (you must be root)'),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), { code: 'NOT_PERMITTED' });
  });

  it('names what to install where iptables is older than 1.8', async () => {
    const host = scripted({
      ip: goodIp,
      iptables: () => ok('iptables v1.6.1\n'),
      'iptables-save': () => ok(emptyNat),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), {
      code: 'TOOL_MISSING',
      message:
        'choose backend: no iptables-nft-save and no iptables-legacy-save; ' +
        'install iptables 1.8 or later',
    });
  });

  it('names what to install where the kernel has no nftables and there is no legacy tool', async () => {
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': (args) =>
        args === '--version'
          ? ok('iptables-nft-save v1.8.9 (nf_tables)')
          : refuse(1, 'Protocol not supported'),
    });
    await assert.rejects(openIptablesRedirect({ host }).install(), {
      code: 'UNSUPPORTED',
      message: /^choose backend: .*, and iptables-legacy-save is not on the PATH; install it$/,
    });
  });

  it('reports a kernel without policy routing as a problem of an installed redirect', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('rule')
          ? refuse(2, 'RTNETLINK answers: Operation not supported')
          : goodIp(args, ''),
      'iptables-nft-save': () => ok(goodNat),
    });
    const status = await openIptablesRedirect({ host }).install();
    assert.deepEqual(status.problems, ['guard impossible: the kernel has no policy routing']);
    assert.equal(status.state, 'broken');
  });

  it('never sets the barrier when the bypass is refused', async () => {
    const host = scripted({
      ip: (args) => {
        if (args.includes('rule show')) return ok('[]');
        if (args.includes('goto')) return refuse(2, 'RTNETLINK answers: Operation not supported');
        return goodIp(args, '');
      },
      'iptables-nft-save': () => ok(goodNat),
    });
    const status = await openIptablesRedirect({ host }).install();
    assert.equal(status.problems.length, 4);
    assert.ok(!host.log.some((line) => line.includes('prohibit')), host.log.join('\n'));
  });

  it('reads its rules by the tool only if the kernel reports that rules have changed', async () => {
    let generation: number | undefined = 1;
    let nat = goodNat;
    let hasAddress = true;
    const host = scripted(
      { ip: goodIp, 'iptables-nft-save': () => ok(nat) },
      {
        ruleGeneration: () => generation,
        isLocal: (ip) => hasAddress && ip === defaultTarget.listenIp,
      },
    );
    const redirect = openIptablesRedirect({ host });
    await redirect.verify();
    const check = async () => {
      host.log.length = 0;
      return [await redirect.isFrontWhole(), ...host.log];
    };
    const tools = ['mangle', 'nat', 'nat'].map((table) => `iptables-nft-save -t ${table}`);
    assert.deepEqual(await check(), [true]);
    generation = 2;
    assert.deepEqual(await check(), [true, ...tools], 'another rule than ours');
    assert.deepEqual(await check(), [true]);
    [generation, nat] = [3, emptyNat];
    assert.deepEqual(await check(), [false, ...tools]);
    assert.deepEqual(await check(), [false]);
    assert.equal((await redirect.verify()).state, 'absent');
    assert.deepEqual(host.log, ['ip -j -d addr show', 'ip -j -4 rule show']);
    [generation, nat] = [undefined, goodNat];
    assert.deepEqual(await check(), [true, ...tools]);
    assert.deepEqual(await check(), [true, ...tools]);
    hasAddress = false;
    assert.deepEqual(await check(), [false]);
  });

  it('runs one operation after the other', async () => {
    let running = 0;
    const host = scripted({ ip: goodIp, 'iptables-nft-save': () => ok(goodNat) });
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
      const target = { ...defaultTarget, ...wrong };
      assert.throws(() => openIptablesRedirect({ host, target }), RangeError);
    }
  });
});

/** The rules of one backend, as its own tools would keep them. */
function keeping(nat: string) {
  const table = { nat, scripts: [] as string[] };
  const save: Answer = (args) =>
    args.startsWith('-c') ? ok(table.nat.replaceAll('-A nmi-', '[4:9] -A nmi-')) : ok(table.nat);
  const restore: Answer = (_args, script) => {
    table.scripts.push(script);
    table.nat = script.includes('DNAT') ? goodNat : emptyNat;
    return ok();
  };
  return { table, save, restore };
}

describe('the iptables redirect', () => {
  it('brings up the address before the listener binds it', async () => {
    const host = scripted({ ip: (args) => ok(args.includes('show') ? '[]' : '') });
    await openIptablesRedirect({ host }).prepare();
    assert.ok(host.log.includes('ip link add nmi0 type dummy'), host.log.join('\n'));
    assert.ok(host.log.includes('ip addr add 169.254.25.79/32 dev nmi0 scope host'));
  });

  it('ends each change before it begins the next one, and the last before it returns', async () => {
    const orders = {
      install: [
        ...['ip link add', 'ip addr add', 'ip link set'],
        ...['iptables-nft-restore', 'iptables-legacy-restore'],
        ...['ip rule add', 'ip rule add', 'ip rule add', 'ip rule add'],
        'cut flows',
      ],
      remove: [
        ...['iptables-nft-restore', 'iptables-legacy-restore'],
        ...['ip rule del', 'ip rule del', 'ip rule del', 'ip rule del'],
        'ip link del',
      ],
    };
    for (const operation of ['install', 'remove'] as const) {
      const isThere = operation === 'remove';
      const [nft, legacy] = [keeping(isThere ? goodNat : emptyNat), keeping(goodNat)];
      const tools = {
        ip: (args: string) => (isThere || !args.includes('show') ? goodIp(args, '') : ok('[]')),
        'iptables-nft-save': nft.save,
        'iptables-nft-restore': nft.restore,
        'iptables-legacy-save': legacy.save,
        'iptables-legacy-restore': legacy.restore,
      };
      const files = { '/proc/net/ip_tables_names': 'nat\n' };
      const steps: string[] = [];
      const host = takingTurns(scripted(tools, { files, cutFlows: () => 1 }), steps);
      await openIptablesRedirect({ host, backend: 'nft' })[operation]();
      assert.deepEqual(
        steps,
        orders[operation].flatMap((step) => [`${step} begins`, `${step} ends`]),
      );
    }
  });

  it('cuts older connections, and reports how many there were', async () => {
    const { save, restore } = keeping(emptyNat);
    const tools = { ip: goodIp, 'iptables-nft-save': save, 'iptables-nft-restore': restore };
    const host = scripted(tools, { cutFlows: () => 2 });
    const redirect = openIptablesRedirect({ host });
    const { changed } = await redirect.install();
    assert.ok(changed?.includes('2 older flows cut'), String(changed));
    assert.equal(host.cuts[0]?.answeredBy, '169.254.25.79');
    assert.deepEqual(host.cuts[0]?.sparedSources, ['169.254.25.79']);
    await openIptablesRedirect({ host, isBehind: true }).install();
    assert.equal(host.cuts[1]?.answeredBy, undefined, 'whatever process answers them');
    const single = scripted(tools, { cutFlows: () => 1 });
    const once = await openIptablesRedirect({ host: single }).install();
    assert.deepEqual(once.changed, ['1 older flows cut']);
    const quiet = scripted(tools, { cutFlows: () => 0 });
    const again = await openIptablesRedirect({ host: quiet }).install();
    assert.deepEqual(again.changed, []);
  });

  it('removes our rules from the backend that is not in use', async () => {
    const [nft, legacy] = [keeping(emptyNat), keeping(goodNat)];
    const host = scripted(
      {
        ip: goodIp,
        'iptables-nft-save': nft.save,
        'iptables-nft-restore': nft.restore,
        'iptables-legacy-save': legacy.save,
        'iptables-legacy-restore': legacy.restore,
      },
      { files: { '/proc/net/ip_tables_names': 'nat\n' } },
    );
    const { changed } = await openIptablesRedirect({ host, backend: 'nft' }).install();
    assert.equal(legacy.table.nat, emptyNat);
    assert.ok(
      changed?.some((change) => change.endsWith(' from legacy')),
      String(changed),
    );
  });

  it('reports that it may not read the other backend, and fails at any other refusal', async () => {
    const { save, restore } = keeping(goodNat);
    const nodeWith = (legacy: Answer) =>
      scripted(
        {
          ip: goodIp,
          'iptables-nft-save': save,
          'iptables-nft-restore': restore,
          'iptables-legacy-save': legacy,
        },
        { files: { '/proc/net/ip_tables_names': 'nat\n' } },
      );
    const forbidden = nodeWith(() => refuse(4, 'Permission denied (you must be root)'));
    const status = await openIptablesRedirect({ host: forbidden, backend: 'nft' }).install();
    assert.equal(status.state, 'active');
    assert.match(status.detail, /; iptables legacy not looked at: .*Permission denied/);
    const locked = nodeWith(() => refuse(4, 'holding the xtables lock'));
    const failing = openIptablesRedirect({ host: locked, backend: 'nft' });
    await assert.rejects(failing.install(), { code: 'BUSY' });
  });

  it('verifies what is installed, in one line and with every problem', async () => {
    const nodeWith = (nat: string) => scripted({ ip: goodIp, 'iptables-nft-save': () => ok(nat) });
    const right = await openIptablesRedirect({ host: nodeWith(goodNat) }).verify();
    assert.deepEqual(right, {
      state: 'active',
      detail:
        'iptables nft; address 169.254.25.79 on nmi0 (dummy); ' +
        'nmi-metadata: 169.254.169.254:80 to 169.254.25.79:2579; guard on',
      port: 2579,
      problems: [],
    });
    const absent = await openIptablesRedirect({ host: nodeWith(emptyNat) }).verify();
    assert.equal(absent.state, 'absent');
    assert.ok(absent.problems.length > 0);
    const half = goodNat.replace('-A PREROUTING -j nmi-metadata\n', '');
    const broken = await openIptablesRedirect({ host: nodeWith(half) }).verify();
    assert.equal(broken.state, 'broken');
    const unguarded = openIptablesRedirect({ host: nodeWith(goodNat), guard: false });
    assert.match((await unguarded.verify()).detail, /; guard off$/);
  });

  it('has no guard where that is off, and removes an earlier one', async () => {
    const { save, restore } = keeping(goodNat);
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': save,
      'iptables-nft-restore': restore,
    });
    const { changed } = await openIptablesRedirect({ host, guard: false }).install();
    assert.deepEqual(changed, [
      'guard rule 82 removed',
      'guard rule 80 removed',
      'guard rule 79 removed',
      'guard rule 81 removed',
    ]);
  });

  it('has link and guard only behind programs where rules cannot be written', async () => {
    const { save, restore } = keeping(emptyNat);
    let refusal: ToolResult | undefined;
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': (args, input) => refusal ?? save(args, input),
      'iptables-nft-restore': (args, input) => refusal ?? restore(args, input),
    });
    const end =
      /^address .* on nmi0 \(dummy\); guard on; no netfilter behind it: .*Operation not supported/;
    refusal = refuse(1, 'iptables: Operation not supported');
    await assert.rejects(openIptablesRedirect({ host, backend: 'nft' }).install(), {
      code: 'UNSUPPORTED',
    });
    const redirect = openIptablesRedirect({ host, backend: 'nft', isBehind: true });
    const found = await redirect.verify();
    assert.match(found.detail, end);
    const { state, detail, problems, changed } = await redirect.install();
    assert.deepEqual([state, problems, changed], ['active', [], []]);
    assert.match(detail, end);
    assert.equal(await redirect.countRedirected(), undefined);
    await redirect.remove();
    assert.ok(host.log.includes('ip link del nmi0'));
    // Until the next installation they are not looked for: what could not be written is no drift.
    refusal = undefined;
    assert.match((await redirect.verify()).detail, end);
    assert.match((await redirect.install()).detail, /^iptables nft; /);
    assert.match((await redirect.verify()).detail, /^iptables nft; /);
    refusal = refuse(4, 'Another app is currently holding the xtables lock');
    await assert.rejects(redirect.install(), { code: 'BUSY' });
  });

  it('waits for the lock as long as it may', async () => {
    const { save, restore } = keeping(emptyNat);
    const tools = { ip: goodIp, 'iptables-nft-save': save, 'iptables-nft-restore': restore };
    const host = scripted(tools);
    await openIptablesRedirect({ host }).remove();
    await openIptablesRedirect({ host }).install();
    assert.ok(
      host.log.some((line) => line.endsWith('-w 5')),
      host.log.join('\n'),
    );
  });

  it('counts connections redirected by its rules', async () => {
    const { save } = keeping(goodNat);
    const host = scripted({ ip: goodIp, 'iptables-nft-save': save });
    assert.equal(await openIptablesRedirect({ host }).countRedirected(), 4);
  });

  it('redirects without the limit of the rate where the kernel has no hashlimit, and says so', async () => {
    let nat = emptyNat;
    const end = '-A nmi-metadata -j RETURN\n';
    const unlimitedNat = goodNat.replaceAll(/^.* -m hashlimit .*\n/gm, '').replace(end, end + end);
    const refusal = 'Extension hashlimit revision 0 not supported, missing kernel module?';
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => ok(nat),
      'iptables-legacy-save': () => ok(emptyNat),
      'iptables-nft-restore': (_args, input) => {
        if (input.includes('hashlimit')) return refuse(4, refusal);
        nat = unlimitedNat;
        return ok();
      },
    });
    const redirect = openIptablesRedirect({ host });
    const status = await redirect.install();
    assert.equal(status.state, 'active', status.problems.join());
    assert.match(status.detail, /; connects are not limited: no hashlimit; /);
    assert.deepEqual((await openIptablesRedirect({ host }).verify()).problems, []);
    nat = unlimitedNat.replace(end, '');
    assert.equal((await redirect.verify()).state, 'broken', 'its rule was deleted');
  });

  it('opens the node when it is removed: rules, guard and link', async () => {
    const { table, save, restore } = keeping(goodNat);
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': save,
      'iptables-nft-restore': restore,
    });
    await openIptablesRedirect({ host }).remove();
    assert.equal(table.nat, emptyNat);
    const removed = host.log.filter((line) => line.includes(' del '));
    assert.deepEqual(removed, [
      'ip rule del pref 82 from 169.254.169.254 blackhole',
      'ip rule del pref 80 to 169.254.169.254 prohibit',
      'ip rule del pref 79 iif lo to 169.254.169.254 goto 81',
      'ip rule del pref 81 to 169.254.169.254 nop',
      'ip link del nmi0',
    ]);
  });

  it('removes guard and link even if the rules cannot be removed', async () => {
    const host = scripted({
      ip: goodIp,
      'iptables-nft-save': () => refuse(4, 'holding the xtables lock'),
    });
    await assert.rejects(openIptablesRedirect({ host }).remove(), { code: 'BUSY' });
    assert.ok(host.log.includes('ip link del nmi0'));
  });
});
