/** Kernels that have one iptables, or neither, or one that can be read but not written. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import type { ToolResult } from '../../../src/redirect/host/command.ts';
import { emptyNat, goodIp, goodNat, ok, refuse, scripted, type Answer } from '../scripted-host.ts';

/** The tools of iptables 1.8.9 over one backend of the kernel. */
function backend(name: 'nft' | 'legacy', nat: ToolResult, isWritable: boolean, onWrite = () => {}) {
  let rules = nat;
  const save: Answer = (args) => {
    if (args === '--version') return ok(`iptables v1.8.9 (${name})\n`);
    return args.includes('mangle') ? ok(mangle) : rules;
  };
  const restore: Answer = () => {
    if (!isWritable) return refuse(1, 'line 2: TABLE_ADD failed (Operation not supported)');
    rules = ok(goodNat);
    onWrite();
    return ok();
  };
  return { [`iptables-${name}-save`]: save, [`iptables-${name}-restore`]: restore };
}
const mangle = '*mangle\nCOMMIT\n';
const ofKubelet = '*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n';

/**
 * Legacy iptables without its module, in the image: no modprobe, and the kernel's list is absent.
 */
const noLegacyModule: Readonly<Record<string, Answer>> = {
  'iptables-legacy-save': (args) =>
    args === '--version' ? ok('iptables-legacy-save v1.8.9 (legacy)\n') : refuse(1, who),
  'iptables-legacy-restore': () => refuse(2, noTable),
};
const who =
  'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)';
/** Caused by the missing module, and also by a missing CAP_NET_RAW. */
const noTable = [
  "iptables-legacy-restore v1.8.9 (legacy): iptables-legacy-restore: unable to initialize table 'nat'",
  'Error occurred at line: 1',
].join('\n');
const moduleNotLoaded = { files: {} };

/** The kernel has no nf_tables. */
const noNft: Readonly<Record<string, Answer>> = {
  'iptables-nft-save': (args) =>
    args === '--version' ? ok('iptables-nft-save v1.8.9 (nf_tables)\n') : refuse(4, noRuleSet),
  'iptables-nft-restore': () => refuse(4, noRuleSet),
};
const noRuleSet =
  'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument';

describe('a node whose legacy iptables is a module that is not loaded', () => {
  for (const kubelet of ['has chains in nft', 'has no chains']) {
    const nft = backend('nft', ok(emptyNat), true);
    const save: Answer = (args) => {
      const isHint = kubelet === 'has chains in nft' && args.includes('mangle');
      return isHint ? ok(ofKubelet) : nft['iptables-nft-save']!(args, '');
    };
    it(`is redirected by nft and opened again, where the kubelet ${kubelet}`, async () => {
      const tools = { ip: goodIp, ...noLegacyModule, ...nft, 'iptables-nft-save': save };
      const host = scripted(tools, moduleNotLoaded);
      const redirect = openIptablesRedirect({ host });
      assert.equal((await redirect.install()).state, 'active');
      assert.equal((await redirect.verify()).state, 'active');
      await redirect.remove();
      const asked = host.log.filter((line) => line.startsWith('iptables-legacy'));
      assert.deepEqual(asked, [], 'a query would load the module, and make a table');
    });
  }

  it('has no usable iptables without nf_tables either, and reports it', async () => {
    const host = scripted({ ip: goodIp, ...noLegacyModule, ...noNft }, moduleNotLoaded);
    const redirect = openIptablesRedirect({ host });
    await assert.rejects(redirect.install(), { code: 'UNSUPPORTED', message: /insmod/ });
    await redirect.remove();
  });
});

describe('a node on which legacy iptables needs a capability that the agent lacks', () => {
  it('reports it even before there is a table', async () => {
    const noRight = 'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: Permission denied';
    const host = scripted({
      ip: goodIp,
      'iptables-legacy-save': () => refuse(1, noRight),
      'iptables-legacy-restore': () => refuse(2, noTable),
    });
    const redirect = openIptablesRedirect({ host, backend: 'legacy' });
    await assert.rejects(redirect.install(), { code: 'NOT_PERMITTED' });
  });
});

describe('a node whose kernel has no nf_tables', () => {
  it('is redirected by legacy iptables', async () => {
    const files: Record<string, string> = { '/proc/net/ip_tables_names': '' };
    const legacy = backend('legacy', ok(emptyNat), true, () => {
      files['/proc/net/ip_tables_names'] = 'nat\n';
    });
    const host = scripted({ ip: goodIp, ...noNft, ...legacy }, { files });
    const redirect = openIptablesRedirect({ host });
    assert.equal((await redirect.install()).state, 'active');
    assert.match((await redirect.verify()).detail, /^iptables legacy;/);
  });
});

describe('a node on which nft can be read but not written', () => {
  it('reports it, and writes to legacy iptables only if that was configured', async () => {
    const nft = backend('nft', ok(emptyNat), false);
    const legacy = backend('legacy', ok(emptyNat), true);
    const files = { '/proc/net/ip_tables_names': 'nat\n' };
    const host = scripted({ ip: goodIp, ...nft, ...legacy }, { files });
    const refused = { code: 'UNSUPPORTED', message: /iptables-nft-restore .*TABLE_ADD failed/ };
    await assert.rejects(openIptablesRedirect({ host }).install(), refused);
    assert.ok(!host.log.some((line) => line.startsWith('iptables-legacy-restore')));
    const status = await openIptablesRedirect({ host, backend: 'legacy' }).install();
    assert.match(status.detail, /^iptables legacy;/);
  });
});
