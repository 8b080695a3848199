import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  countRedirected,
  detectBackend,
  otherBackend,
  probeTable,
  restoreRules,
  saveNat,
} from '../../../src/redirect/iptables/backend.ts';
import { emptyNat, goodNat, ok, refuse, scripted, type Answer } from '../scripted-host.ts';

const kubelet = ':KUBE-KUBELET-CANARY - [0:0]\n';
const hint = ':KUBE-IPTABLES-HINT - [0:0]\n';
const empty = { nat: '', mangle: '' };

/** A tool that prints these tables. */
function printing(tables: Readonly<Record<string, string>>): Answer {
  return (args) => {
    if (args === '--version') return ok('iptables v1.8.9\n');
    const table = /-t (\w+)/.exec(args)?.[1] ?? '';
    return ok(`*${table}\n${tables[table] ?? ''}COMMIT\n`);
  };
}

interface Node {
  readonly nft?: Answer;
  readonly legacy?: Answer;
  /** Undefined where the kernel's module is not loaded. */
  readonly legacyTables?: string | undefined;
}

function nodeOf({ nft, legacy, legacyTables }: Node) {
  const tools = {
    ...(nft === undefined ? {} : { 'iptables-nft-save': nft }),
    ...(legacy === undefined ? {} : { 'iptables-legacy-save': legacy }),
  };
  const files = legacyTables === undefined ? {} : { '/proc/net/ip_tables_names': legacyTables };
  return scripted(tools, { files });
}

async function detected(node: Node): Promise<string> {
  return detectBackend(nodeOf(node), 'auto');
}

const bothTables = 'nat\nmangle\n';

describe('the iptables that is in use', () => {
  it('is the configured one, without detection', async () => {
    const host = scripted({});
    assert.equal(await detectBackend(host, 'nft'), 'nft');
    assert.equal(await detectBackend(host, 'legacy'), 'legacy');
    assert.deepEqual(host.log, []);
  });

  it('is the one with the chains of the kubelet, in either table', async () => {
    for (const chain of [kubelet, hint]) {
      for (const table of ['mangle', 'nat']) {
        const has = printing({ ...empty, [table]: chain });
        const own = printing({ ...empty, nat: ':nmi-metadata - [0:0]\n' });
        assert.equal(await detected({ nft: has, legacy: own, legacyTables: bothTables }), 'nft');
        assert.equal(await detected({ nft: own, legacy: has, legacyTables: bothTables }), 'legacy');
      }
    }
  });

  it('is nft where both have them', async () => {
    const has = printing({ ...empty, nat: kubelet });
    assert.equal(await detected({ nft: has, legacy: has, legacyTables: bothTables }), 'nft');
  });

  it('is nft where it works, else legacy', async () => {
    const none = printing(empty);
    assert.equal(await detected({ nft: none, legacy: none, legacyTables: '' }), 'nft');
    assert.equal(await detected({ legacy: none, legacyTables: '' }), 'legacy');
    const unsupported: Answer = (args) =>
      args === '--version' ? ok('v1.8.9') : refuse(1, 'Protocol not supported');
    assert.equal(await detected({ nft: unsupported, legacy: none, legacyTables: '' }), 'legacy');
  });

  it('is not decided while a tool is refused access', async () => {
    const locked: Answer = () => refuse(4, 'Another app is currently holding the xtables lock.');
    await assert.rejects(detected({ nft: locked }), { code: 'BUSY' });
    const forbidden: Answer = () => refuse(4, 'Permission denied (you must be root)');
    await assert.rejects(detected({ nft: forbidden }), { code: 'NOT_PERMITTED' });
  });

  it('is none without a tool, and the error names what to install', async () => {
    await assert.rejects(detected({}), {
      code: 'TOOL_MISSING',
      message: /no iptables-nft-save and no .*; install iptables 1\.8 or later$/,
    });
  });

  it('leaves the other one as the alternative', () => {
    assert.equal(otherBackend('nft'), 'legacy');
    assert.equal(otherBackend('legacy'), 'nft');
  });
});

describe('a table of legacy iptables', () => {
  it('is not listed where the kernel does not have it: listing would create it', async () => {
    const host = nodeOf({ legacy: printing(empty), legacyTables: 'filter\n' });
    assert.equal(await probeTable(host, 'legacy', 'nat'), '');
    assert.equal(await saveNat(host, 'legacy'), '');
    assert.equal(await countRedirected(host, 'legacy'), undefined);
    assert.deepEqual(host.log, []);
  });

  it('is listed only where the kernel has it: listing loads its module', async () => {
    const host = nodeOf({ legacy: () => ok(goodNat), legacyTables: 'nat\n' });
    assert.equal(await probeTable(host, 'legacy', 'nat'), goodNat);
    assert.equal(await saveNat(host, 'legacy'), goodNat);
    assert.equal(host.log.length, 2);
    const unlisted = nodeOf({ legacy: () => ok(goodNat), legacyTables: undefined });
    assert.equal(await probeTable(unlisted, 'legacy', 'nat'), '');
    assert.equal(await saveNat(unlisted, 'legacy'), '');
    assert.equal(unlisted.log.length, 0);
  });
});

describe('reading and writing rules', () => {
  it('treats a tool or kernel without the backend as empty where the backend is optional', async () => {
    assert.equal(await probeTable(nodeOf({}), 'nft', 'nat'), undefined);
    const host = nodeOf({ nft: () => refuse(3, 'Table does not exist') });
    assert.equal(await probeTable(host, 'nft', 'nat'), undefined);
    await assert.rejects(saveNat(host, 'nft'), { code: 'UNSUPPORTED', step: 'read rules' });
  });

  it('reads as many rules as a large cluster has', async () => {
    const limits: (number | undefined)[] = [];
    const host = nodeOf({ nft: () => ok(emptyNat) });
    const noting = {
      ...host,
      run: (tool: string, args: readonly string[], options?: { readonly maxBytes?: number }) => {
        limits.push(options?.maxBytes);
        return host.run(tool, args, options);
      },
    };
    await saveNat(noting, 'nft');
    await countRedirected(noting, 'nft');
    assert.deepEqual(limits, [64 << 20, 64 << 20]);
  });

  it('commits one script, and waits for the lock', async () => {
    const scripts: string[] = [];
    const host = scripted({
      'iptables-nft-restore': (_args, input) => {
        scripts.push(input);
        return scripts.length === 1 ? ok() : refuse(1, 'line 1 failed');
      },
    });
    await restoreRules(host, 'nft', 'script');
    assert.deepEqual(host.log, ['iptables-nft-restore --noflush -w 5']);
    assert.deepEqual(scripts, ['script']);
    await assert.rejects(restoreRules(host, 'nft', 'script'), { step: 'write rules' });
  });

  it('counts connections redirected by our rules, and by no others', async () => {
    const rule = '-A nmi-metadata -d 169.254.169.254/32 -p tcp -j DNAT --to-destination 1.2.3.4:5';
    const save = [
      '*nat',
      `[3:180] ${rule}`,
      `[40:180] ${rule}`,
      '[500:1] -A nmi-metadata -j RETURN',
      '[600:1] -A KUBE-SERVICES -p tcp -j DNAT --to-destination 1.2.3.4:5',
      'COMMIT',
    ].join('\n');
    assert.equal(await countRedirected(nodeOf({ nft: () => ok(save) }), 'nft'), 43);
    assert.equal(await countRedirected(nodeOf({ nft: () => ok(emptyNat) }), 'nft'), undefined);
  });
});
