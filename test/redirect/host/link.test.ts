import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  describeLink,
  diffLink,
  ensureLink,
  listLinks,
  nodeAddresses,
  readLink,
  removeLink,
  type NodeLink,
} from '../../../src/redirect/host/link.ts';
import { parseIpJson } from '../../../src/redirect/host/ip-json.ts';
import { ok, refuse, scripted, type ScriptedHost } from '../scripted-host.ts';

const ip = '169.254.25.79';

function parseLinks(json: string): readonly NodeLink[] | undefined {
  return parseIpJson(json)?.map(readLink);
}

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
      if (args.endsWith('type dummy') && !hasDummy) return refuse(2, 'Error: Unknown device type.');
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
    assert.equal(parseLinks('{"ifname":"lo"}'), undefined);
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
        args.includes('show') ? ok('[]') : refuse(2, 'RTNETLINK answers: Operation not permitted'),
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
