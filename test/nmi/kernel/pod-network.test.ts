import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openPodNetwork, withPlace } from '../../../src/nmi/kernel/pod-network.ts';
import { RedirectError, type Attestation, type Place } from '../../../src/redirect/redirect.ts';

const place: Place = { link: 5 };
const peer = { remoteIp: '::ffff:10.0.0.5', remotePort: 1, localIp: '10.0.0.1', localPort: 2 };

function open(answer: () => Place | undefined = () => place) {
  const warnings: string[] = [];
  const ignore = (): void => undefined;
  const log = {
    debug: ignore,
    info: ignore,
    error: ignore,
    warn: (_fields: object, text: string) => void warnings.push(text),
  };
  const asked: string[] = [];
  const kernel = {
    placeOf: (ip: string) => {
      asked.push(ip);
      return answer();
    },
    ownsLink: () => answer()?.mac === undefined,
    hasLink: () => answer() !== undefined,
  };
  const network = openPodNetwork(log, (lookUp) => lookUp(kernel));
  return { network, asked, warnings };
}

function refuse(): never {
  throw new RedirectError('NOT_PERMITTED', 'open netlink', 'Operation not permitted');
}

describe('the pod network', () => {
  it('returns the place of an IPv4 address in each of its spellings, and of no other', () => {
    const { network, asked } = open();
    assert.equal(network.placeOf('10.0.0.5'), place);
    assert.equal(network.placeOf('::ffff:10.0.0.6'), place);
    assert.equal(network.placeOf('fd00::5'), 'unknown');
    assert.equal(network.placeOf(''), 'unknown');
    assert.deepEqual(asked, ['10.0.0.5', '10.0.0.6']);
  });

  it('keeps the places of pods when it cannot read them, and logs that once', () => {
    const { network, warnings } = open(refuse);
    assert.equal(network.placeOf('10.0.0.5'), 'unknown');
    assert.equal(network.placeOf('10.0.0.5'), 'unknown');
    assert.ok(network.hasLink(5));
    assert.ok(!network.ownsLink('10.0.0.5'));
    assert.ok(!network.ownsLink('fd00::5'));
    assert.deepEqual(warnings, ['failed to look up the network link of a pod']);
  });

  it('looks up each of several addresses once in 20 ms', (t) => {
    let nowMs = 0;
    t.mock.method(performance, 'now', () => nowMs);
    const { network, asked } = open();
    const ips = ['10.0.0.5', '10.0.0.6', '10.0.0.7'];
    for (const atMs of [0, 19, 20]) {
      nowMs = atMs;
      for (const ip of ips) network.placeOf(ip);
    }
    assert.deepEqual(asked, [...ips, ...ips]);
  });

  it('does not hide a bug', () => {
    const { network } = open(() => {
      throw new TypeError('ip: an IPv4 address is wanted');
    });
    assert.throws(() => network.placeOf('10.0.0.5'), TypeError);
  });

  it('adds the place only to attestations by address', () => {
    const { network, asked } = open();
    const attested: Attestation = { kind: 'attested', cgroupId: 1n };
    assert.equal(withPlace(attested, peer, network), attested);
    assert.deepEqual(asked, []);
    assert.deepEqual(withPlace({ kind: 'by-address' }, peer, network), {
      kind: 'by-address',
      place,
    });
    const nowhere = open(() => undefined);
    assert.deepEqual(withPlace({ kind: 'by-address' }, peer, nowhere.network), {
      kind: 'by-address',
      place: 'unknown',
    });
  });
});
