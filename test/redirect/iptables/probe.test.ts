import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { probeIptables } from '../../../src/redirect/iptables/probe.ts';
import {
  emptyNat,
  goodIp,
  ok,
  refuse,
  scripted,
  type Answer,
  type ScriptedOptions,
} from '../scripted-host.ts';

async function probe(answers: Readonly<Record<string, Answer>>, options?: ScriptedOptions) {
  const { support, findings } = await probeIptables(scripted(answers, options));
  const texts = findings.map((each) => `${each.part}: ${each.support}, ${each.detail}`);
  return { support, texts };
}

const nft: Answer = () => ok(emptyNat);
const legacy: Answer = (args) => (args === '--version' ? ok('iptables v1.8.9') : ok(emptyNat));

describe('the iptables support of a node', () => {
  it('is the backends, the one in use, and policy routing', async () => {
    const found = await probe({
      ip: goodIp,
      'iptables-nft-save': nft,
      'iptables-legacy-save': legacy,
    });
    assert.deepEqual(found, {
      support: 'supported',
      texts: [
        'iptables nft: supported, iptables-nft-save',
        'iptables legacy: supported, tables: none',
        'iptables in use: supported, nft',
        'policy routing: supported, for the guard behind the rules',
      ],
    });
  });

  it('lists the tables of legacy, or reports that its module is not loaded', async () => {
    const tools = { ip: goodIp, 'iptables-legacy-save': legacy };
    const files = { '/proc/net/ip_tables_names': 'nat\nfilter\n' };
    const loaded = await probe(tools, { files });
    assert.equal(loaded.texts[1], 'iptables legacy: supported, tables: nat, filter');
    assert.equal(loaded.texts[2], 'iptables in use: supported, legacy');
    const unloaded = await probe(tools, { files: {} });
    assert.equal(unloaded.texts[1], 'iptables legacy: unknown, its kernel module is not loaded');
  });

  it('is nothing without the tools', async () => {
    const { support, texts } = await probe({});
    assert.equal(support, 'unsupported');
    assert.equal(
      texts[0],
      'iptables nft: unsupported, probe: iptables-nft-save is not on the PATH',
    );
    assert.match(texts[1] ?? '', /^iptables legacy: unsupported, /);
    assert.match(
      texts[2] ?? '',
      /^iptables in use: unsupported, choose backend: found no iptables/,
    );
    assert.match(texts[3] ?? '', /^policy routing: unsupported, read guard: ip is not on the PATH/);
  });

  it('is unknown without the capability, and while something is locked', async () => {
    const forbidden = await probe({
      ip: () => refuse(2, 'RTNETLINK answers: Operation not permitted'),
      'iptables-nft-save': () => refuse(4, 'Permission denied (you must be root)'),
    });
    assert.equal(forbidden.support, 'unknown');
    for (const text of [forbidden.texts[0], forbidden.texts[2], forbidden.texts[3]]) {
      assert.match(text ?? '', /: unknown, unknown without CAP_NET_ADMIN \(/);
    }
    const locked = await probe({
      ip: goodIp,
      'iptables-nft-save': () => refuse(4, 'holding the xtables lock'),
    });
    assert.equal(locked.support, 'unknown');
  });

  it('has no guard in a kernel without policy routing', async () => {
    const { support, texts } = await probe({
      ip: () => refuse(2, 'RTNETLINK answers: Operation not supported'),
      'iptables-nft-save': nft,
    });
    assert.equal(support, 'supported', 'rules can be written all the same');
    assert.equal(
      texts[3],
      'policy routing: unsupported, guard impossible: the kernel has no policy routing',
    );
  });
});
