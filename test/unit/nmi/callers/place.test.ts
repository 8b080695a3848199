import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import {
  openPodNetwork,
  PodPlaces,
  withPlace,
  type UnrecordedCallers,
} from '../../../../src/nmi/callers/place.ts';
import { RedirectError, type Attestation, type Place } from '../../../../src/redirect/redirect.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';

const ip = '10.0.0.5';
const routed: Place = { link: 5 };
const bridged: Place = { link: 2, port: 3, mac: '02:00:00:00:00:01' };

function open() {
  const clock = new HandClock();
  const pods = new PodIndex(clock, assert.ifError);
  const state = {
    /** By address. */
    places: new Map<string, Place>(),
    links: new Set<number>(),
    /** The pod in the API server; an error when it cannot be read. */
    stored: undefined as Pod | Error | undefined,
    reads: 0,
  };
  const places = new PodPlaces({
    pods,
    clock,
    placeOf: (each) => state.places.get(each) ?? 'unknown',
    hasLink: (link) => state.links.has(link),
    readPod: () => {
      state.reads += 1;
      return state.stored instanceof Error
        ? Promise.reject(state.stored)
        : Promise.resolve(state.stored);
    },
  });
  const add = (fields: Partial<Pod> = {}): Pod => {
    const pod = createPod({ name: 'p', ips: [ip], ...fields });
    pods.upsert(pod);
    return pod;
  };
  return { clock, pods, state, places, add };
}

describe('the place of a pod', () => {
  it('is that of its first connection, and no other', () => {
    for (const [first, other] of [
      [routed, { link: 6 }],
      [bridged, { ...bridged, port: 4 }],
      [bridged, { ...bridged, link: 9 }],
      [
        { link: 2, mac: '02:00:00:00:00:01' },
        { link: 2, mac: '02:00:00:00:00:02' },
      ],
      [routed, 'unknown'],
    ] as const) {
      const { places, state, add } = open();
      const pod = add();
      state.links = new Set([2, 3, 5]);
      assert.ok(places.isOf(pod, ip, first));
      assert.ok(!places.isOf(pod, ip, other), JSON.stringify([first, other]));
      assert.ok(places.isOf(pod, ip, first), 'its own place is still valid');
    }
  });

  it('is known from the watch when the route alone determines it', () => {
    const { places, state, add } = open();
    state.places.set(ip, routed);
    state.links.add(5);
    const pod = add();
    assert.equal(places.size, 1);
    assert.ok(!places.isOf(pod, ip, { link: 6 }));
    assert.ok(places.isOf(pod, ip, routed));
  });

  it('is not taken from a MAC address that may be that of the previous pod', () => {
    const { places, state, add } = open();
    state.places.set(ip, { link: 2, mac: '02:00:00:00:00:0f' });
    const pod = add();
    assert.equal(places.size, 0);
    assert.ok(places.isOf(pod, ip, bridged));
  });

  it('is not recorded for a pod that ends, nor while two have the address', () => {
    const { places, state, add } = open();
    state.places.set(ip, routed);
    add({ terminating: true });
    add({ name: 'q' });
    assert.equal(places.size, 0);
  });

  it('is the same with another MAC on the same port, and by the MAC without a port', () => {
    const { places, add } = open();
    const pod = add();
    assert.ok(places.isOf(pod, ip, bridged));
    assert.ok(places.isOf(pod, ip, { ...bridged, mac: '02:00:00:00:00:02' }));
    assert.ok(places.isOf(pod, ip, { link: 2, mac: '02:00:00:00:00:02' }));
    assert.ok(!places.isOf(pod, ip, { link: 2, mac: '02:00:00:00:00:03' }));
  });

  it('is unrestricted until one is known', () => {
    const { places, state, add } = open();
    const pod = add();
    state.links.add(5);
    assert.ok(places.isOf(pod, ip, 'unknown'));
    assert.ok(places.isOf(pod, ip, 'unknown'));
    assert.ok(places.isOf(pod, ip, routed));
    assert.ok(!places.isOf(pod, ip, { link: 6 }));
  });

  it('is removed with the pod, with its address, and at its end', () => {
    const { pods, places, add } = open();
    const other: Place = { link: 6 };
    let pod = add();
    assert.ok(places.isOf(pod, ip, routed));
    pods.remove(pod);
    assert.equal(places.size, 0);
    pod = add({ uid: 'next' });
    assert.ok(places.isOf(pod, ip, other));
    pod = add({ uid: 'next', ips: ['10.0.0.6'] });
    assert.equal(places.size, 0);
    assert.ok(places.isOf(pod, '10.0.0.6', routed));
    add({ uid: 'next', ips: ['10.0.0.6'], phase: 'Succeeded' });
    assert.equal(places.size, 0);
  });

  it('is recorded by IPv4, the only family that reaches the metadata address', () => {
    const { places, state, add } = open();
    state.places.set(ip, routed);
    state.places.set('fd00::5', { link: 9 });
    const pod = add({ ips: ['fd00::5', ip] });
    assert.ok(places.isOf(pod, ip, routed));
  });
});

describe('a link', () => {
  it('is that of one pod alone unless another is known behind it', () => {
    const { places, state, add } = open();
    const pod = add();
    assert.ok(places.isOf(pod, ip, routed));
    assert.ok(places.isAlone(pod, { link: 5 }));
    const other = add({ name: 'other', uid: 'other', ips: ['10.0.0.6'] });
    assert.ok(places.isOf(other, '10.0.0.6', { link: 6 }));
    assert.deepEqual(
      [places.isAlone(pod, { link: 5 }), places.isAlone(pod, { link: 6 })],
      [true, false],
    );
    assert.ok(places.isAlone(other, { link: 6 }));
    state.places.set('10.0.0.7', routed);
    add({ name: 'third', uid: 'third', ips: ['10.0.0.7'] });
    assert.ok(!places.isAlone(pod, { link: 5 }));
    assert.ok(!places.isAlone(pod, 'unknown'));
  });

  it('stays the place of a pod whose labels change, whatever the route says by then', () => {
    const { places, state, add } = open();
    state.places.set(ip, routed);
    state.links.add(5);
    add();
    state.places.set(ip, { link: 6 });
    const pod = add({ labels: { app: 'web' } });
    assert.ok(places.isOf(pod, ip, routed));
    assert.ok(!places.isOf(pod, ip, { link: 6 }));
  });
});

describe('a pod that has moved', () => {
  const moved: Place = { link: 6 };

  it('is found at its new place once its link is deleted and the API server confirms the pod', async () => {
    const { clock, places, state, add } = open();
    const pod = add();
    state.stored = pod;
    assert.ok(places.isOf(pod, ip, routed));
    assert.ok(!places.isOf(pod, ip, moved), 'at first');
    clock.advance(14_999);
    assert.ok(!places.isOf(pod, ip, moved), 'too early');
    await setImmediate();
    assert.equal(state.reads, 0);
    clock.advance(1);
    assert.ok(!places.isOf(pod, ip, moved), 'before the pod is read');
    assert.ok(!places.isOf(pod, ip, moved));
    await setImmediate();
    assert.equal(state.reads, 1, 'once for all requests');
    assert.ok(places.isOf(pod, ip, moved));
    assert.ok(!places.isOf(pod, ip, routed), 'not at the old place any more');
  });

  it('has not moved when the API server has another pod, none, one that ends, or does not answer', async () => {
    const own = createPod({ name: 'p', ips: [ip] });
    for (const stored of [
      undefined,
      createPod({ name: 'p', uid: 'next', ips: [ip] }),
      { ...own, terminating: true },
      { ...own, phase: 'Succeeded' as const },
      { ...own, ips: ['10.0.0.9'] },
      new Error('the API server is away'),
    ]) {
      const { clock, places, state, add } = open();
      const pod = add();
      state.stored = stored;
      assert.ok(places.isOf(pod, ip, routed));
      assert.ok(!places.isOf(pod, ip, moved));
      for (const reads of [1, 2]) {
        clock.advance(15_000);
        assert.ok(!places.isOf(pod, ip, moved));
        await setImmediate();
        assert.ok(!places.isOf(pod, ip, moved), JSON.stringify(stored));
        assert.equal(state.reads, reads, 'once in 15 s');
      }
    }
  });

  it('is not where another link has its address while its own link exists', async () => {
    const { clock, places, state, add } = open();
    const pod = add();
    state.stored = pod;
    state.links = new Set([2, 3]);
    assert.ok(places.isOf(pod, ip, bridged));
    for (let count = 0; count < 3; count += 1) {
      assert.ok(!places.isOf(pod, ip, { ...bridged, port: 4 }));
      await setImmediate();
      clock.advance(600_000);
    }
    assert.equal(state.reads, 0);
  });

  it('has not moved when it ends', async () => {
    const { clock, places, state, add } = open();
    state.stored = add();
    places.isOf(state.stored, ip, routed);
    const pod = add({ terminating: true });
    for (let count = 0; count < 3; count += 1) {
      assert.ok(!places.isOf(pod, ip, moved));
      await setImmediate();
      clock.advance(600_000);
    }
  });

  it('waits again at each further place, and is at none that it left during the read', async () => {
    const { clock, places, state, add } = open();
    const pod = add();
    state.stored = pod;
    places.isOf(pod, ip, routed);
    assert.ok(!places.isOf(pod, ip, moved));
    clock.advance(16_000);
    assert.ok(!places.isOf(pod, ip, { link: 7 }));
    await setImmediate();
    assert.equal(state.reads, 0);
    clock.advance(15_000);
    assert.ok(!places.isOf(pod, ip, { link: 7 }));
    assert.ok(!places.isOf(pod, ip, { link: 8 }));
    await setImmediate();
    assert.equal(state.reads, 1);
    for (const link of [7, 8]) assert.ok(!places.isOf(pod, ip, { link }), `${link}`);
  });
});

function openNetwork(answer: () => Place | undefined = () => routed) {
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
    placeOf: (each: string) => {
      asked.push(each);
      return answer();
    },
    ownsLink: () => answer()?.mac === undefined,
    hasLink: () => answer() !== undefined,
  };
  const clock = new HandClock();
  const network = openPodNetwork(log, clock, (lookUp) => lookUp(kernel));
  return { network, asked, warnings, clock };
}

function refuse(): never {
  throw new RedirectError('NOT_PERMITTED', 'open netlink', 'Operation not permitted');
}

describe('the pod network', () => {
  it('returns the place of an IPv4 address in each of its spellings, and of no other', () => {
    const { network, asked } = openNetwork();
    assert.equal(network.placeOf('10.0.0.5'), routed);
    assert.equal(network.placeOf('::ffff:10.0.0.6'), routed);
    assert.equal(network.placeOf('fd00::5'), 'unknown');
    assert.equal(network.placeOf(''), 'unknown');
    assert.deepEqual(asked, ['10.0.0.5', '10.0.0.6']);
  });

  it('keeps the places of pods when it cannot read them, and logs that once', () => {
    const { network, warnings } = openNetwork(refuse);
    assert.equal(network.placeOf('10.0.0.5'), 'unknown');
    assert.equal(network.placeOf('10.0.0.5'), 'unknown');
    assert.ok(network.hasLink(5));
    assert.ok(!network.ownsLink('10.0.0.5'));
    assert.ok(!network.ownsLink('fd00::5'));
    assert.deepEqual(warnings, ['failed to look up the network link of a pod']);
  });

  it('looks up each of several addresses once in 20 ms', () => {
    const { network, asked, clock } = openNetwork();
    const ips = ['10.0.0.5', '10.0.0.6', '10.0.0.7'];
    for (const passedMs of [0, 19, 1]) {
      clock.advance(passedMs);
      for (const each of ips) network.placeOf(each);
    }
    assert.deepEqual(asked, [...ips, ...ips]);
  });

  it('does not hide a bug', () => {
    const { network } = openNetwork(() => {
      throw new TypeError('ip: an IPv4 address is wanted');
    });
    assert.throws(() => network.placeOf('10.0.0.5'), TypeError);
  });
});

const peer = { remoteIp: '10.0.0.5', socket: 1 };
const unattested: Attestation = { kind: 'unattested' };

function complete(
  attestation: Attestation,
  place: Place | 'unknown',
  policy: UnrecordedCallers = 'by-link',
  isOwn = true,
): Attestation {
  const network = {
    placeOf: (each: string) => {
      assert.equal(each, peer.remoteIp);
      return place;
    },
    ownsLink: (each: string) => {
      assert.equal(each, peer.remoteIp);
      return isOwn && place !== 'unknown';
    },
  };
  return withPlace(attestation, peer, network, policy);
}

describe('a caller without a record', () => {
  it('is identified by a link that belongs to its address alone', () => {
    const found = complete(unattested, { link: 5 });
    assert.deepEqual(found, { kind: 'by-link', place: { link: 5 } });
    const noRoom = { kind: 'unattested', retryWhy: 'no room' } as const;
    assert.equal(complete(noRoom, { link: 5 }).kind, 'by-link', 'however full the map is');
  });

  it('is refused on a shared link, at an address of no pod, and by the option', () => {
    for (const place of [{ link: 5 }, { link: 5, mac: '02:00:00:00:00:01' }, bridged]) {
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
    assert.deepEqual(complete(direct, place), { ...direct, place });
    assert.equal(complete(direct, bridged, 'by-link', false), direct);
    assert.equal(complete(direct, place, 'refuse'), direct);
    const redirected = { ...direct, isDirect: false };
    assert.equal(complete(redirected, place), redirected);
  });
});

describe('another attestation', () => {
  it('has its place noted if it is by address, whatever the option, and is not changed otherwise', () => {
    for (const place of [{ link: 5 }, bridged, 'unknown'] as const) {
      const found = complete({ kind: 'by-address' }, place, 'refuse', false);
      assert.deepEqual(found, { kind: 'by-address', place });
    }
    const unavailable = { kind: 'unavailable', why: 'x' } as const;
    assert.equal(complete(unavailable, { link: 5 }), unavailable);
  });
});
