import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { diffGuard, ensureGuard, readRule, removeGuard } from '../../../src/redirect/host/guard.ts';
import { parseIpJson } from '../../../src/redirect/host/ip-json.ts';
import { goodRules, ok, refuse, scripted, type ScriptedHost } from '../scripted-host.ts';

function parseRules(json: string) {
  return parseIpJson(json)
    ?.map(readRule)
    .filter((rule) => rule !== undefined);
}

const metadataIp = '169.254.169.254';
const all = JSON.parse(goodRules) as readonly Record<string, unknown>[];

/** A node with these rules, which can refuse one command. */
function nodeOf(
  rules: string,
  refusal?: { readonly of: string; readonly stderr: string },
): ScriptedHost {
  return scripted({
    ip: (args) => {
      if (args === '-j -4 rule show') return ok(rules);
      return refusal !== undefined && args.includes(refusal.of) ? refuse(2, refusal.stderr) : ok();
    },
  });
}

function changesOf({ log }: ScriptedHost): readonly string[] {
  return log.filter((line) => !line.includes('show'));
}

const noPolicyRouting = () =>
  scripted({ ip: () => refuse(2, 'RTNETLINK answers: Operation not supported') });

describe('reading the policy rules of a node', () => {
  it('never throws', () => {
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc.json().map((json) => `[${json}]`),
    );
    fc.assert(fc.property(text, (some) => void parseRules(some)));
  });

  it('distinguishes an empty answer from one that is not JSON', async () => {
    assert.deepEqual(parseRules('\n'), []);
    assert.equal(parseRules('0: from all lookup local'), undefined);
    await assert.rejects(diffGuard(nodeOf('0: from all lookup local'), metadataIp), {
      code: 'TOOL_FAILED',
      step: 'read guard',
    });
  });

  it('treats a rule with any further selector as another owner’s', () => {
    const own = { priority: 80, src: 'all', dst: '192.0.2.1', action: 'prohibit' };
    assert.deepEqual(parseRules(JSON.stringify([own])), ['pref 80 to 192.0.2.1 prohibit']);
    const others = [
      { not: null },
      { dstlen: 24 },
      { src: '10.0.0.1' },
      { iif: 'eth0' },
      { oif: 'eth0' },
      { fwmark: '0x40', fwmask: '0x40' },
      { ipproto: 'tcp' },
      { dport: 80 },
      { uid_start: 0 },
      { priority: 'first' },
    ];
    for (const more of others) {
      assert.deepEqual(parseRules(JSON.stringify([{ ...own, ...more }])), [], JSON.stringify(more));
    }
  });

  it('reads rules for packets from an address', () => {
    const own = { priority: 82, src: '192.0.2.1', action: 'blackhole' };
    assert.deepEqual(parseRules(JSON.stringify([own])), ['pref 82 from 192.0.2.1 blackhole']);
    for (const more of [{ dst: '10.0.0.1' }, { srclen: 24 }, { src: 'all' }, { iif: 'eth0' }]) {
      assert.deepEqual(parseRules(JSON.stringify([{ ...own, ...more }])), [], JSON.stringify(more));
    }
  });

  it('does not take a rule to the address for the one from it', async () => {
    const to = { priority: 82, src: 'all', dst: metadataIp, action: 'blackhole' };
    const host = nodeOf(JSON.stringify([...all.slice(0, 3), to]));
    assert.deepEqual(await diffGuard(host, metadataIp), [
      `guard rule missing: pref 82 from ${metadataIp} blackhole`,
    ]);
  });

  it('reads actions from their own fields, and a look-up when there is none', () => {
    const rule = { priority: 7, src: 'all', dst: '192.0.2.1' };
    const actions = [{ goto: 81 }, { nop: null }, { action: 'unreachable' }, {}].map(
      (action) => parseRules(JSON.stringify([{ ...rule, ...action }]))?.[0],
    );
    assert.deepEqual(
      actions,
      ['goto 81', 'nop', 'unreachable', 'lookup'].map((action) => `pref 7 to 192.0.2.1 ${action}`),
    );
  });
});

describe('the guard', () => {
  it('is complete with its four rules, each for the metadata address', async () => {
    assert.deepEqual(await diffGuard(nodeOf(goodRules), metadataIp), []);
    assert.deepEqual(await diffGuard(nodeOf(goodRules), '192.0.2.1'), [
      'guard rule missing: pref 81 to 192.0.2.1 nop',
      'guard rule missing: pref 79 iif lo to 192.0.2.1 goto 81',
      'guard rule missing: pref 80 to 192.0.2.1 prohibit',
      'guard rule missing: pref 82 from 192.0.2.1 blackhole',
    ]);
  });

  it('misses a rule that differs in anything', async () => {
    const [bypass, barrier, landing, forgery] = all;
    for (const other of [
      { ...barrier, priority: 90 },
      { ...barrier, iif: 'lo' },
      { ...barrier, action: 'unreachable' },
    ]) {
      const host = nodeOf(JSON.stringify([bypass, other, landing, forgery]));
      assert.deepEqual(await diffGuard(host, metadataIp), [
        `guard rule missing: pref 80 to ${metadataIp} prohibit`,
      ]);
    }
  });

  it('is built with the bypass before the barrier', async () => {
    const host = nodeOf('[]');
    assert.deepEqual(await ensureGuard(host, metadataIp), [
      'guard rule 81 added',
      'guard rule 79 added',
      'guard rule 80 added',
      'guard rule 82 added',
    ]);
    assert.deepEqual(changesOf(host), [
      `ip rule add pref 81 to ${metadataIp} nop`,
      `ip rule add pref 79 iif lo to ${metadataIp} goto 81`,
      `ip rule add pref 80 to ${metadataIp} prohibit`,
      `ip rule add pref 82 from ${metadataIp} blackhole`,
    ]);
  });

  it('gets only the rule that is missing', async () => {
    const host = nodeOf(JSON.stringify(all.filter(({ priority }) => priority !== 80)));
    assert.deepEqual(await ensureGuard(host, metadataIp), ['guard rule 80 added']);
    assert.equal(changesOf(host).length, 1);
  });

  it('gets no barrier when the kernel refuses the bypass', async () => {
    const stderr = 'RTNETLINK answers: Operation not supported';
    const host = nodeOf('[]', { of: 'goto', stderr });
    assert.deepEqual(await ensureGuard(host, metadataIp), ['guard rule 81 added']);
    assert.ok(!changesOf(host).some((line) => line.includes('prohibit')));
  });

  it('accepts that another process has added a rule meanwhile, and no other refusal', async () => {
    const quicker = nodeOf('[]', { of: 'goto', stderr: 'RTNETLINK answers: File exists' });
    assert.deepEqual(await ensureGuard(quicker, metadataIp), [
      'guard rule 81 added',
      'guard rule 80 added',
      'guard rule 82 added',
    ]);
    const stderr = 'RTNETLINK answers: Operation not permitted';
    await assert.rejects(ensureGuard(nodeOf('[]', { of: 'goto', stderr }), metadataIp), {
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
    const half = nodeOf(JSON.stringify(all.slice(1, 2)));
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
