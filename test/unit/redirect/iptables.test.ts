/** The choice of an iptables, and the composed redirect where tools are missing, are refused, or lose a race. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Host, ToolResult } from '../../../src/redirect/host/command.ts';
import {
  detectBackend,
  otherBackend,
  probeTable,
  restoreRules,
  saveNat,
} from '../../../src/redirect/iptables/backend.ts';
import {
  openIptablesRedirect,
  type IptablesRedirectOptions,
} from '../../../src/redirect/iptables/iptables.ts';
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
  type ScriptedOptions,
} from '../../support/scripted-host.ts';

const locked = refuse(4, 'Another app is currently holding the xtables lock.');
const forbidden = refuse(4, 'Permission denied (you must be root)');
const natInLegacy = { files: { '/proc/net/ip_tables_names': 'nat\n' } };

/** The rules of one backend, as its own tools would keep them. */
function keeping(nat: string, name: 'nft' | 'legacy' = 'nft') {
  const table = { nat };
  const save: Answer = (args) =>
    args.startsWith('-c') ? ok(table.nat.replaceAll('-A nmi-', '[4:9] -A nmi-')) : ok(table.nat);
  const restore: Answer = (_args, script) => {
    table.nat = script.includes('DNAT') ? goodNat : emptyNat;
    return ok();
  };
  const tools = { [`iptables-${name}-save`]: save, [`iptables-${name}-restore`]: restore };
  return { table, save, restore, tools };
}

/** A node whose link and guard are right, with these tools over them. */
function nodeWith(tools: Readonly<Record<string, Answer>>, options?: ScriptedOptions) {
  return scripted({ ip: goodIp, ...tools }, options);
}

function install(host: Host, options: IptablesRedirectOptions = {}) {
  return openIptablesRedirect({ host, ...options }).install();
}

describe('the iptables redirect on a node that refuses', () => {
  it('reports BUSY while another program holds the lock, and works afterwards', async () => {
    let refusals = 3;
    const { save, restore } = keeping(emptyNat);
    const host = nodeWith({
      'iptables-nft-save': save,
      'iptables-nft-restore': (args, input) => (refusals-- > 0 ? locked : restore(args, input)),
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
    const jump = '-A PREROUTING -j nmi-metadata\n';
    const jumps = (count: number) => goodNat.replace(jump, others + jump.repeat(count));
    let nat = jumps(2);
    const scripts: string[] = [];
    const host = nodeWith({
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': (_, script) => {
        const isFirst = scripts.push(script) === 1;
        nat = isFirst ? jumps(1) : goodNat;
        return isFirst ? refuse(1, 'iptables-nft-restore: line 3 failed: Bad rule') : ok();
      },
    });
    assert.equal((await install(host)).state, 'active');
    assert.deepEqual(
      scripts.map((script) => script.match(/^-D/gm)?.length),
      [2, 1],
    );
  });

  it('does not take a fault of its own for another writer', async () => {
    const fault = new TypeError('a fault');
    let nat = emptyNat;
    const host = nodeWith({
      'iptables-nft-save': () => ok(nat),
      'iptables-nft-restore': () => {
        nat = goodNat;
        throw fault;
      },
    });
    await assert.rejects(install(host), fault);
  });

  it('stops and reports broken when another process undoes every change', async () => {
    let round = 0;
    const host = nodeWith({
      'iptables-nft-save': () => {
        round += 1;
        return ok(`*nat\n${'-A PREROUTING -p tcp -j ACCEPT\n'.repeat(round)}COMMIT\n`);
      },
      'iptables-nft-restore': () => ok(),
    });
    assert.equal((await install(host)).state, 'absent');
    assert.equal(host.log.filter((line) => line.includes('-restore')).length, 3);
  });

  it('names the tool that is missing, and still sets up the guard', async () => {
    const host = scripted({
      ip: (args) => (args.includes('rule show') ? ok() : goodIp(args, '')),
    });
    const redirect = openIptablesRedirect({ host });
    await assert.rejects(redirect.install(), { code: 'TOOL_MISSING', step: 'choose backend' });
    assert.deepEqual(
      host.log.filter((line) => line.includes('rule add')),
      [
        'ip rule add pref 81 to 169.254.169.254 nop',
        'ip rule add pref 79 to 169.254.169.254 iif lo goto 81',
        'ip rule add pref 80 to 169.254.169.254 prohibit',
        'ip rule add pref 82 from 169.254.169.254 blackhole',
      ],
    );
    await assert.rejects(redirect.verify(), { code: 'TOOL_MISSING' });
  });

  it('reports NOT_PERMITTED without the capability', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('show') ? goodIp(args, '') : refuse(2, 'Operation not permitted'),
      'iptables-nft-save': () => forbidden,
    });
    await assert.rejects(install(host), { code: 'NOT_PERMITTED' });
  });

  it('reports a kernel without policy routing as a problem of an installed redirect', async () => {
    const host = scripted({
      ip: (args) =>
        args.includes('rule')
          ? refuse(2, 'RTNETLINK answers: Operation not supported')
          : goodIp(args, ''),
      'iptables-nft-save': () => ok(goodNat),
    });
    const status = await install(host);
    assert.deepEqual(status.problems, ['guard impossible: the kernel has no policy routing']);
    assert.equal(status.state, 'broken');
  });

  it('reads its rules by the tool only if the kernel reports that rules have changed', async () => {
    let generation: number | undefined = 1;
    let nat = goodNat;
    let hasAddress = true;
    const host = nodeWith(
      { 'iptables-nft-save': () => ok(nat) },
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
    assert.deepEqual(host.log, ['ip -j -d addr show', 'ip -4 rule show']);
    [generation, nat] = [undefined, goodNat];
    assert.deepEqual(await check(), [true, ...tools]);
    assert.deepEqual(await check(), [true, ...tools]);
    hasAddress = false;
    assert.deepEqual(await check(), [false]);
  });

  it('runs one operation after the other', async () => {
    let running = 0;
    const host = nodeWith({ 'iptables-nft-save': () => ok(goodNat) });
    const slow: Host = {
      ...host,
      run: async (tool, args, options) => {
        const counted = args[0] === '--noflush' || tool === 'iptables-nft-save' ? 1 : 0;
        running += counted;
        assert.ok(running <= 1, 'two at once');
        await new Promise(setImmediate);
        const result = await host.run(tool, args, options);
        running -= counted;
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
    for (const wrong of [
      { listenIp: 'fd00::1' },
      { metadataIp: 'metadata' },
      { listenPort: 0 },
      { metadataPort: 65536 },
    ]) {
      const target = { ...defaultTarget, ...wrong };
      assert.throws(() => openIptablesRedirect({ host: scripted({}), target }), RangeError);
    }
  });
});

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
      const tools = {
        ip: (args: string) => (isThere || !args.includes('show') ? goodIp(args, '') : ok('[]')),
        ...keeping(isThere ? goodNat : emptyNat).tools,
        ...keeping(goodNat, 'legacy').tools,
      };
      const steps: string[] = [];
      const host = takingTurns(scripted(tools, { ...natInLegacy, cutFlows: () => 1 }), steps);
      await openIptablesRedirect({ host, backend: 'nft' })[operation]();
      assert.deepEqual(
        steps,
        orders[operation].flatMap((step) => [`${step} begins`, `${step} ends`]),
      );
    }
  });

  it('cuts older connections except the node’s, reports their number, and hides no bug', async () => {
    const { tools } = keeping(emptyNat);
    const host = nodeWith(tools, { cutFlows: () => 2 });
    const { changed } = await install(host);
    assert.ok(changed?.includes('2 older flows cut'), String(changed));
    await install(host, { isBehind: true });
    const dialled = { ip: '169.254.169.254', port: 80 };
    const sparedSources = ['169.254.25.79'];
    assert.deepEqual(host.cuts, [
      { dialled, answeredBy: '169.254.25.79', sparedSources },
      { dialled, answeredBy: undefined, sparedSources },
    ]);
    const once = await install(nodeWith(tools, { cutFlows: () => 1 }));
    assert.deepEqual(once.changed, ['1 older flows cut']);
    const again = await install(nodeWith(tools, { cutFlows: () => 0 }));
    assert.deepEqual(again.changed, []);
    const bug = (): never => {
      throw new TypeError('bug');
    };
    await assert.rejects(install(nodeWith(tools, { cutFlows: bug })), TypeError);
  });

  it('removes our rules from the backend that is not in use', async () => {
    const legacy = keeping(goodNat, 'legacy');
    const host = nodeWith({ ...keeping(emptyNat).tools, ...legacy.tools }, natInLegacy);
    const { changed = [] } = await install(host, { backend: 'nft' });
    assert.equal(legacy.table.nat, emptyNat);
    assert.ok(
      changed.some((change) => change.endsWith(' from legacy')),
      String(changed),
    );
  });

  it('reports that it may not read the other backend, and fails at any other refusal', async () => {
    const installBeside = (legacy: ToolResult) => {
      const tools = { ...keeping(goodNat).tools, 'iptables-legacy-save': () => legacy };
      return install(nodeWith(tools, natInLegacy), { backend: 'nft' });
    };
    const status = await installBeside(forbidden);
    assert.equal(status.state, 'active');
    assert.match(status.detail, /; iptables legacy not looked at: .*Permission denied/);
    await assert.rejects(installBeside(locked), { code: 'BUSY' });
  });

  it('verifies what is installed, in one line and with every problem', async () => {
    const verify = (nat: string, options: IptablesRedirectOptions = {}) =>
      openIptablesRedirect({
        host: nodeWith({ 'iptables-nft-save': () => ok(nat) }),
        ...options,
      }).verify();
    assert.deepEqual(await verify(goodNat), {
      state: 'active',
      detail:
        'iptables nft; address 169.254.25.79 on nmi0 (dummy); ' +
        'nmi-metadata: 169.254.169.254:80 to 169.254.25.79:2579; guard on',
      port: 2579,
      problems: [],
    });
    const absent = await verify(emptyNat);
    assert.equal(absent.state, 'absent');
    assert.ok(absent.problems.length > 0);
    const half = goodNat.replace('-A PREROUTING -j nmi-metadata\n', '');
    assert.equal((await verify(half)).state, 'broken');
    assert.match((await verify(goodNat, { guard: false })).detail, /; guard off$/);
  });

  it('has no guard where that is off, and removes an earlier one', async () => {
    const { changed } = await install(nodeWith(keeping(goodNat).tools), { guard: false });
    assert.deepEqual(
      changed,
      [82, 80, 79, 81].map((pref) => `guard rule ${pref} removed`),
    );
  });

  it('has link and guard only behind programs where rules cannot be written', async () => {
    const { save, restore } = keeping(emptyNat);
    let refusal: ToolResult | undefined = refuse(1, 'iptables: Operation not supported');
    const host = nodeWith({
      'iptables-nft-save': (args, input) => refusal ?? save(args, input),
      'iptables-nft-restore': (args, input) => refusal ?? restore(args, input),
    });
    const end =
      /^address .* on nmi0 \(dummy\); guard on; no netfilter behind it: .*Operation not supported/;
    await assert.rejects(install(host, { backend: 'nft' }), { code: 'UNSUPPORTED' });
    const redirect = openIptablesRedirect({ host, backend: 'nft', isBehind: true });
    assert.match((await redirect.verify()).detail, end);
    const { state, detail, problems, changed } = await redirect.install();
    assert.deepEqual([state, problems, changed], ['active', [], []]);
    assert.match(detail, end);
    await redirect.remove();
    assert.ok(host.log.includes('ip link del nmi0'));
    // Until the next installation they are not looked for: what could not be written is no drift.
    refusal = undefined;
    assert.match((await redirect.verify()).detail, end);
    assert.match((await redirect.install()).detail, /^iptables nft; /);
    assert.match((await redirect.verify()).detail, /^iptables nft; /);
    refusal = locked;
    await assert.rejects(redirect.install(), { code: 'BUSY' });
  });

  it('redirects without the limit of the rate where the kernel has no hashlimit, and says so', async () => {
    let nat = emptyNat;
    const end = '-A nmi-metadata -j RETURN\n';
    const unlimitedNat = goodNat.replaceAll(/^.* -m hashlimit .*\n/gm, '').replace(end, end + end);
    const refusal = 'Extension hashlimit revision 0 not supported, missing kernel module?';
    const host = nodeWith({
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
    const { table, tools } = keeping(goodNat);
    const host = nodeWith(tools);
    await openIptablesRedirect({ host }).remove();
    assert.equal(table.nat, emptyNat);
    assert.deepEqual(
      host.log.filter((line) => line.includes(' del ')),
      [
        'ip rule del pref 82 from 169.254.169.254 blackhole',
        'ip rule del pref 80 to 169.254.169.254 prohibit',
        'ip rule del pref 79 to 169.254.169.254 iif lo goto 81',
        'ip rule del pref 81 to 169.254.169.254 nop',
        'ip link del nmi0',
      ],
    );
  });

  it('removes guard and link even if the rules cannot be removed', async () => {
    const host = nodeWith({ 'iptables-nft-save': () => locked });
    await assert.rejects(openIptablesRedirect({ host }).remove(), { code: 'BUSY' });
    assert.ok(host.log.includes('ip link del nmi0'));
  });
});

describe('kernels that have one iptables, or neither, or one that cannot be written', () => {
  const mangle = '*mangle\nCOMMIT\n';
  const ofKubelet = '*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n';
  /** The tools of iptables 1.8.9 over one backend of the kernel. */
  const backend = (name: 'nft' | 'legacy', refusal?: ToolResult, onWrite = () => {}) => {
    let rules = ok(emptyNat);
    const save: Answer = (args) => {
      if (args === '--version') return ok(`iptables v1.8.9 (${name})\n`);
      return args.includes('mangle') ? ok(mangle) : rules;
    };
    const restore: Answer = () => {
      if (refusal !== undefined) return refusal;
      rules = ok(goodNat);
      onWrite();
      return ok();
    };
    return { [`iptables-${name}-save`]: save, [`iptables-${name}-restore`]: restore };
  };

  /** Legacy iptables without its module, in the image: no modprobe, and the kernel's list is absent. */
  const noLegacyModule: Readonly<Record<string, Answer>> = {
    'iptables-legacy-save': (args) =>
      args === '--version'
        ? ok('iptables-legacy-save v1.8.9 (legacy)\n')
        : refuse(
            1,
            'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)',
          ),
    'iptables-legacy-restore': () => noTable,
  };
  /** Caused by the missing module, and also by a missing CAP_NET_RAW. */
  const noTable = refuse(
    2,
    "iptables-legacy-restore v1.8.9 (legacy): iptables-legacy-restore: unable to initialize table 'nat'\n" +
      'Error occurred at line: 1',
  );
  const noRuleSet = refuse(
    4,
    'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument',
  );
  const noNft: Readonly<Record<string, Answer>> = {
    'iptables-nft-save': (args) =>
      args === '--version' ? ok('iptables-nft-save v1.8.9 (nf_tables)\n') : noRuleSet,
    'iptables-nft-restore': () => noRuleSet,
  };

  for (const [kubelet, hint] of [
    ['has chains in nft', ofKubelet],
    ['has no chains', mangle],
  ] as const) {
    it(`never asks a legacy module that is not loaded, where the kubelet ${kubelet}`, async () => {
      const nft = backend('nft');
      const save: Answer = (args) =>
        args.includes('mangle') ? ok(hint) : nft['iptables-nft-save']!(args, '');
      const host = nodeWith(
        { ...noLegacyModule, ...nft, 'iptables-nft-save': save },
        { files: {} },
      );
      const redirect = openIptablesRedirect({ host });
      assert.equal((await redirect.install()).state, 'active');
      assert.equal((await redirect.verify()).state, 'active');
      await redirect.remove();
      const asked = host.log.filter((line) => line.startsWith('iptables-legacy'));
      assert.deepEqual(asked, [], 'a query would load the module, and make a table');
    });
  }

  it('without nf_tables and without that module have no usable iptables, which is reported', async () => {
    const host = nodeWith({ ...noLegacyModule, ...noNft }, { files: {} });
    const redirect = openIptablesRedirect({ host });
    await assert.rejects(redirect.install(), { code: 'UNSUPPORTED', message: /insmod/ });
    await redirect.remove();
  });

  it('report a capability that legacy iptables lacks, even before there is a table', async () => {
    const noRight = 'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: Permission denied';
    const host = nodeWith({
      'iptables-legacy-save': () => refuse(1, noRight),
      'iptables-legacy-restore': () => noTable,
    });
    await assert.rejects(install(host, { backend: 'legacy' }), { code: 'NOT_PERMITTED' });
  });

  it('without nf_tables are redirected by legacy iptables', async () => {
    const files: Record<string, string> = { '/proc/net/ip_tables_names': '' };
    const legacy = backend('legacy', undefined, () => {
      files['/proc/net/ip_tables_names'] = 'nat\n';
    });
    const redirect = openIptablesRedirect({ host: nodeWith({ ...noNft, ...legacy }, { files }) });
    assert.equal((await redirect.install()).state, 'active');
    assert.match((await redirect.verify()).detail, /^iptables legacy;/);
  });

  it('whose nft cannot be written are written by legacy only if that was configured', async () => {
    const refusal = refuse(1, 'line 2: TABLE_ADD failed (Operation not supported)');
    const host = nodeWith({ ...backend('nft', refusal), ...backend('legacy') }, natInLegacy);
    const refused = { code: 'UNSUPPORTED', message: /iptables-nft-restore .*TABLE_ADD failed/ };
    await assert.rejects(install(host), refused);
    assert.ok(!host.log.some((line) => line.startsWith('iptables-legacy-restore')));
    assert.match((await install(host, { backend: 'legacy' })).detail, /^iptables legacy;/);
  });
});

describe('the iptables that is in use', () => {
  const kubelet = ':KUBE-KUBELET-CANARY - [0:0]\n';
  const hint = ':KUBE-IPTABLES-HINT - [0:0]\n';
  const bothTables = 'nat\nmangle\n';
  /** A tool that prints these tables. */
  const printing =
    (tables: Readonly<Record<string, string>> = {}): Answer =>
    (args) => {
      if (args === '--version') return ok('iptables v1.8.9\n');
      const table = /-t (\w+)/.exec(args)?.[1] ?? '';
      return ok(`*${table}\n${tables[table] ?? ''}COMMIT\n`);
    };
  const without =
    (refusal: ToolResult): Answer =>
    (args) =>
      args === '--version' ? ok('v1.8.9') : refusal;
  /** @param tables undefined where the kernel's module for legacy iptables is not loaded. */
  const nodeOf = (nft?: Answer, legacy?: Answer, tables?: string) =>
    scripted(
      {
        ...(nft === undefined ? {} : { 'iptables-nft-save': nft }),
        ...(legacy === undefined ? {} : { 'iptables-legacy-save': legacy }),
      },
      { files: tables === undefined ? {} : { '/proc/net/ip_tables_names': tables } },
    );
  const detected = async (...node: Parameters<typeof nodeOf>) =>
    detectBackend(nodeOf(...node), 'auto');

  it('is the configured one, without detection', async () => {
    const host = scripted({});
    assert.equal(await detectBackend(host, 'nft'), 'nft');
    assert.equal(await detectBackend(host, 'legacy'), 'legacy');
    assert.deepEqual(host.log, []);
    assert.deepEqual([otherBackend('nft'), otherBackend('legacy')], ['legacy', 'nft']);
  });

  it('is the one with the chains of the kubelet, in either table; nft where both have them', async () => {
    const own = printing({ nat: ':nmi-metadata - [0:0]\n' });
    for (const chain of [kubelet, hint]) {
      for (const table of ['mangle', 'nat']) {
        const has = printing({ [table]: chain });
        assert.equal(await detected(has, own, bothTables), 'nft');
        assert.equal(await detected(own, has, bothTables), 'legacy');
        assert.equal(await detected(has, has, bothTables), 'nft');
      }
    }
  });

  it('is nft where it works, else legacy', async () => {
    assert.equal(await detected(printing(), printing(), ''), 'nft');
    assert.equal(await detected(undefined, printing(), ''), 'legacy');
    const unsupported = without(refuse(1, 'Protocol not supported'));
    assert.equal(await detected(unsupported, printing(), ''), 'legacy');
  });

  it('is not decided while a tool is refused access', async () => {
    await assert.rejects(
      detected(() => locked),
      { code: 'BUSY' },
    );
    await assert.rejects(
      detected(() => forbidden),
      { code: 'NOT_PERMITTED' },
    );
  });

  it('is none without a tool that works, and the error names what to install', async () => {
    const older = scripted({
      iptables: () => ok('iptables v1.6.1\n'),
      'iptables-save': () => ok(emptyNat),
    });
    await assert.rejects(detectBackend(older, 'auto'), {
      code: 'TOOL_MISSING',
      message:
        'choose backend: iptables-nft-save is missing or refused by the kernel, ' +
        'and iptables-legacy-save is missing: install iptables 1.8 or later',
    });
    await assert.rejects(detected(without(refuse(1, 'Protocol not supported'))), {
      code: 'TOOL_MISSING',
    });
  });

  it('lists no legacy table that the kernel does not have: listing would create it', async () => {
    for (const [legacy, tables] of [
      [printing(), 'filter\n'],
      [() => ok(goodNat), undefined],
    ] as const) {
      const host = nodeOf(undefined, legacy, tables);
      assert.equal(await probeTable(host, 'legacy', 'nat'), '');
      assert.equal(await saveNat(host, 'legacy'), '');
      assert.deepEqual(host.log, []);
    }
    const host = nodeOf(undefined, () => ok(goodNat), 'nat\n');
    assert.equal(await probeTable(host, 'legacy', 'nat'), goodNat);
    assert.equal(await saveNat(host, 'legacy'), goodNat);
    assert.equal(host.log.length, 2);
  });

  it('is empty without a tool or kernel where it is optional, and refused where it is not', async () => {
    assert.equal(await probeTable(nodeOf(), 'nft', 'nat'), undefined);
    const host = nodeOf(() => refuse(3, 'Table does not exist'));
    assert.equal(await probeTable(host, 'nft', 'nat'), undefined);
    await assert.rejects(saveNat(host, 'nft'), { code: 'UNSUPPORTED', step: 'read rules' });
  });

  it('commits one script, and waits for the lock', async () => {
    const scripts: string[] = [];
    const host = scripted({
      'iptables-nft-restore': (_args, input) =>
        scripts.push(input) === 1 ? ok() : refuse(1, 'line 1 failed'),
    });
    await restoreRules(host, 'nft', 'script');
    assert.deepEqual(host.log, ['iptables-nft-restore --noflush -w 5']);
    assert.deepEqual(scripts, ['script']);
    await assert.rejects(restoreRules(host, 'nft', 'script'), { step: 'write rules' });
  });
});
