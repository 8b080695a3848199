import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseRules } from '../../../src/redirect/host/guard.ts';
import { nodeAddresses, parseLinks } from '../../../src/redirect/host/link.ts';

describe('reading what the tools print', () => {
  it('never throws', () => {
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc.json().map((json) => `[${json}]`),
    );
    fc.assert(
      fc.property(text, (some) => {
        parseRules(some);
        parseLinks(some);
      }),
    );
  });

  it('tells an empty answer from one that is not JSON', () => {
    assert.deepEqual(parseRules('\n'), []);
    assert.deepEqual(parseLinks('[{},{}]')?.length, 2);
    assert.equal(parseRules('0: from all lookup local'), undefined);
    assert.equal(parseLinks('{"ifname":"lo"}'), undefined);
  });

  it('knows links by kind, port and address', () => {
    const links = parseLinks(
      JSON.stringify([
        {
          ifname: 'nmi0',
          flags: ['BROADCAST', 'UP'],
          linkinfo: { info_kind: 'bridge' },
          addr_info: [
            { family: 'inet', local: '169.254.25.79', prefixlen: 32 },
            { family: 'inet6', local: 'fe80::1', prefixlen: 64 },
          ],
        },
        { ifname: 'eth0', flags: [], master: 'br0', addr_info: [] },
      ]),
    );
    assert.deepEqual(links, [
      { name: 'nmi0', kind: 'bridge', master: undefined, up: true, ipv4: ['169.254.25.79'] },
      { name: 'eth0', kind: undefined, master: 'br0', up: false, ipv4: [] },
    ]);
    assert.deepEqual([...nodeAddresses(links ?? [])], ['169.254.25.79']);
  });

  it('takes a rule with any further selector for somebody else’s', () => {
    const own = { priority: 80, src: 'all', dst: '192.0.2.1', action: 'prohibit' };
    assert.deepEqual(parseRules(JSON.stringify([own])), [
      { pref: 80, dst: '192.0.2.1', iif: undefined, action: 'prohibit' },
    ]);
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
    ];
    for (const more of others) {
      assert.deepEqual(parseRules(JSON.stringify([{ ...own, ...more }])), [], JSON.stringify(more));
    }
  });
});
