import assert from 'node:assert/strict';
import { isIP, isIPv4 } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { canonicalIp } from '../../../src/cache/index/ip.ts';

/** The result of node:net and the URL standard for the text, with mapped addresses as IPv4. */
function canonicalByPlatform(text: string): string | undefined {
  const family = isIP(text);
  if (family === 0) return undefined;
  if (family === 4) return text;
  const [address = ''] = text.split('%');
  const host = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(host);
  if (mapped === null) return host;
  const [high, low] = [parseInt(mapped[1]!, 16), parseInt(mapped[2]!, 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

const group = fc.oneof(
  { weight: 3, arbitrary: fc.constant('0') },
  fc.nat(0xffff).map((value) => value.toString(16)),
  fc.nat(0xffff).map((value) => value.toString(16).toUpperCase().padStart(4, '0')),
);
const fullIpv6 = fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(':'));
const mappedIpv4 = fc
  .tuple(fc.constantFrom('::ffff:', '::FFFF:', '0:0:0:0:0:ffff:', '0000::ffff:', '::'), fc.ipV4())
  .map(([prefix, address]) => prefix + address);
const zoned = fc
  .tuple(fc.oneof(fc.ipV6(), mappedIpv4), fc.constantFrom('%eth0', '%1', '%', '%a b', '%a%b'))
  .map(([address, zone]) => address + zone);
const address = fc.oneof(fc.ipV4(), fc.ipV4Extended(), fc.ipV6(), fullIpv6, mappedIpv4, zoned);
const addressLike = fc.string({
  unit: fc.constantFrom('0', '1', '9', '25', 'f', 'FF', ':', '::', '.', '%', ' ', 'g', '-'),
  maxLength: 24,
});
/** A real address with one character replaced, removed or added. */
const damaged = fc
  .tuple(address, fc.nat(50), fc.nat(1), fc.constantFrom('', '0', ':', '::', '.', 'f', 'x', '%'))
  .map(([text, at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut));

describe('the canonical spelling of an address', () => {
  it('leaves a dotted IPv4 address as it is', () => {
    for (const text of ['0.0.0.0', '10.244.0.17', '255.255.255.255']) {
      assert.equal(canonicalIp(text), text);
    }
  });

  it('turns every form of an IPv4-mapped address into IPv4', () => {
    for (const text of [
      '::ffff:10.0.0.5',
      '::FFFF:10.0.0.5',
      '::ffff:a00:5',
      '::ffff:0a00:0005',
      '0:0:0:0:0:ffff:10.0.0.5',
      '0000:0000:0000:0000:0000:ffff:0a00:0005',
      '::ffff:10.0.0.5%eth0',
    ]) {
      assert.equal(canonicalIp(text), '10.0.0.5', text);
    }
  });

  it('compresses IPv6 as RFC 5952 requires', () => {
    for (const [text, expected] of [
      ['2001:0DB8:0000:0000:0000:0000:0000:0001', '2001:db8::1'],
      ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
      ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
      ['0:0:0:0:0:0:0:0', '::'],
      ['0:0:0:0:0:0:0:1', '::1'],
      ['1:0:0:0:0:0:0:0', '1::'],
      ['fe80::1%eth0', 'fe80::1'],
      ['64:ff9b::10.0.0.5', '64:ff9b::a00:5'],
    ] as const) {
      assert.equal(canonicalIp(text), expected);
    }
  });

  it('refuses text that is not an address', () => {
    for (const text of [
      '',
      ' ',
      '10.0.0',
      '10.0.0.0.1',
      '10.0.0.256',
      '10.0.0.05',
      '010.0.0.5',
      '10.0.0.5 ',
      '10.0.0.5:80',
      '10.0.0.5%eth0',
      '0x0a.0.0.5',
      '::ffff:10.0.0.05',
      '::ffff:10.0.0.5.6',
      ':',
      ':::',
      '1::2::3',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1::2:3:4:5:6:7:8',
      '1:2:3:4:5:6:7:1.2.3.4',
      '12345::',
      'fe80::1%',
      '[::1]',
      'localhost',
    ]) {
      assert.equal(canonicalIp(text), undefined, text);
    }
  });

  it('agrees with the platform on addresses', () => {
    fc.assert(
      fc.property(address, (text) => {
        // A second spelling of the same address, from another formatter, results in the same key.
        assert.equal(canonicalIp(text), canonicalIp(canonicalByPlatform(text) ?? ''));
      }),
      { numRuns: 3000 },
    );
  });

  it('agrees with the platform on text that is almost an address', () => {
    fc.assert(
      fc.property(fc.oneof(addressLike, damaged), (text) => {
        // A second spelling of the same address, from another formatter, results in the same key.
        assert.equal(canonicalIp(text), canonicalIp(canonicalByPlatform(text) ?? ''));
      }),
      { numRuns: 5000 },
    );
  });

  it('never throws, and is its own canonical spelling', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), address), (text) => {
        const ip = canonicalIp(text);
        if (ip !== undefined) assert.equal(canonicalIp(ip), ip);
        if (ip !== undefined) assert.equal(isIPv4(ip), !ip.includes(':'));
      }),
      { numRuns: 2000 },
    );
  });

  it('handles very long text at once', () => {
    const started = performance.now();
    for (const part of ['1', ':', '1:', '1.', '0', '%', '::ffff:']) {
      assert.equal(canonicalIp(part.repeat(200_000)), undefined);
    }
    assert.ok(performance.now() - started < 1000);
  });
});
