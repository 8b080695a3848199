import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { withLink, type UnrecordedCallers } from '../../../src/nmi/kernel/unrecorded-callers.ts';
import type { Attestation, Place } from '../../../src/redirect/redirect.ts';

const peer = { remoteIp: '10.0.0.5', remotePort: 1, localIp: '169.254.25.79', localPort: 2579 };
const unattested: Attestation = { kind: 'unattested' };
const mac = '02:00:00:00:00:01';

function complete(
  attestation: Attestation,
  place: Place | 'unknown',
  policy: UnrecordedCallers = 'by-link',
  isOwn = true,
): Attestation {
  const network = {
    placeOf: (ip: string) => {
      assert.equal(ip, peer.remoteIp);
      return place;
    },
    ownsLink: (ip: string) => {
      assert.equal(ip, peer.remoteIp);
      return isOwn && place !== 'unknown';
    },
  };
  return withLink(attestation, peer, policy, network);
}

describe('a caller without a record', () => {
  it('is identified by a link that belongs to its address alone', () => {
    const found = complete(unattested, { link: 5 });
    assert.deepEqual(found, { kind: 'by-link', place: { link: 5 } });
    const noRoom = { kind: 'unattested', retryWhy: 'no room' } as const;
    assert.equal(complete(noRoom, { link: 5 }).kind, 'by-link', 'however full the map is');
  });

  it('is refused on a shared link, at an address of no pod, and by the option', () => {
    for (const place of [{ link: 5 }, { link: 5, mac }, { link: 5, mac, port: 6 }]) {
      const found = complete(unattested, place, 'by-link', false);
      assert.deepEqual(found, { kind: 'unattested', refusedBy: 'shared-link' });
    }
    assert.equal(complete(unattested, 'unknown'), unattested);
    assert.deepEqual(complete(unattested, { link: 5 }, 'refuse'), {
      kind: 'unattested',
      refusedBy: 'option',
    });
  });
});

describe('a caller with a record', () => {
  const direct = { kind: 'attested', cgroupId: 7n, isDirect: true } as const;

  it('has its link noted only if it connected to the agent directly', () => {
    const place = { link: 5 };
    assert.deepEqual(complete(direct, place), { ...direct, ownLink: place });
    assert.equal(complete(direct, { link: 5, mac }, 'by-link', false), direct);
    assert.equal(complete(direct, place, 'refuse'), direct);
    const redirected = { ...direct, isDirect: false };
    assert.equal(complete(redirected, place), redirected);
  });
});

describe('another attestation', () => {
  it('is not changed', () => {
    for (const attestation of [
      { kind: 'by-address' },
      { kind: 'unavailable', why: 'x' },
    ] as const) {
      assert.equal(complete(attestation, { link: 5 }), attestation);
    }
  });
});
