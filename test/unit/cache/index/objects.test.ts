import assert from 'node:assert/strict';
import { isIP, isIPv4 } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { bindingLabelOf, matchesPod } from '../../../../src/cache/index/binding-label.ts';
import { exceptionKeys, isExcepted } from '../../../../src/cache/index/excepted-labels.ts';
import {
  isGuid,
  isResourceId,
  normaliseClientId,
  normaliseResource,
  normaliseResourceId,
} from '../../../../src/cache/index/identifiers.ts';
import { canonicalIp } from '../../../../src/cache/index/ip.ts';
import { Multimap } from '../../../../src/cache/index/multimap.ts';
import { MemoryObjectStore } from '../../../../src/cache/index/object-store.ts';
import type { Binding, Pod, StoredObject } from '../../../../src/cache/index/objects.ts';
import { Observers } from '../../../../src/cache/index/observers.ts';
import { OwnerIndex } from '../../../../src/cache/index/owner-index.ts';
import { createBinding, createIdentityGrant, createPod } from '../../../support/cache-objects.ts';

interface Item extends StoredObject {
  readonly value: number;
}

function createItem(name: string, value = 0, uid = `uid-${name}`, resourceVersion = '1'): Item {
  return { namespace: 'default', name, uid, resourceVersion, value };
}

function open() {
  const steps: string[] = [];
  const nameOf = (item: Item | undefined): string =>
    item === undefined ? '-' : `${item.name}${item.value}`;
  const store = new MemoryObjectStore<Item>({
    changed: (before, after) => steps.push(`${nameOf(before)} to ${nameOf(after)}`),
    settled: () => steps.push('settled'),
  });
  /** The notifications of the owner since the last call. */
  const take = (): readonly string[] => steps.splice(0);
  return { store, take };
}

describe('a store of objects', () => {
  it('keeps an object, and its version, through versions that change none of its fields', () => {
    const { store, take } = open();
    const first = createItem('a', 1, 'u', '10');
    store.upsert(first);
    store.upsert(createItem('a', 1, 'u', '11'));
    store.replace([createItem('a', 1, 'u', '12')]);
    assert.equal(store.get('default', 'a'), first);
    assert.deepEqual(take(), ['- to a1', 'settled', 'settled']);
    store.upsert(createItem('a', 2, 'u', '13'));
    assert.equal(store.get('default', 'a')?.resourceVersion, '13');
  });

  it('notifies its owner of each difference of a list, and once of the end of the list', () => {
    const { store, take } = open();
    store.replace([createItem('a'), createItem('b')]);
    assert.deepEqual(take(), ['- to a0', '- to b0', 'settled']);
    store.replace([createItem('b', 1), createItem('c')]);
    assert.deepEqual(take(), ['a0 to -', 'b0 to b1', '- to c0', 'settled']);
    assert.deepEqual(
      [...store.all()].map(({ name }) => name),
      ['b', 'c'],
    );
    assert.deepEqual([store.size, store.get('default', 'a')], [2, undefined]);
  });

  it('notifies of one change for one object', () => {
    const { store, take } = open();
    store.upsert(createItem('a'));
    store.upsert(createItem('a', 1));
    assert.deepEqual(take(), ['- to a0', 'settled', 'a0 to a1', 'settled']);
    store.remove(createItem('a', 7));
    assert.deepEqual(take(), ['a1 to -', 'settled']);
    assert.equal(store.size, 0);
  });

  it('is not affected by the late delete of a predecessor, nor of an unknown object', () => {
    const { store, take } = open();
    store.upsert(createItem('a', 0, 'second'));
    take();
    store.remove(createItem('a', 0, 'first'));
    store.remove(createItem('b'));
    assert.deepEqual(take(), []);
    assert.equal(store.size, 1);
  });
});

describe('groups', () => {
  it('hold what was added under each key and not deleted', () => {
    const values = Array.from({ length: 4 }, (_, name) => ({ name }));
    const anyStep = fc.record({
      key: fc.constantFrom('a', 'b'),
      value: fc.constantFrom(...values),
      isDeleted: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 40 }), (steps) => {
        const groups = new Multimap<(typeof values)[number]>();
        const model = { a: new Set<object>(), b: new Set<object>() };
        for (const { key, value, isDeleted } of steps) {
          if (isDeleted) {
            groups.delete(key, value);
            model[key as 'a'].delete(value);
          } else {
            groups.add(key, value);
            model[key as 'a'].add(value);
          }
          for (const each of ['a', 'b'] as const) {
            assert.deepEqual(new Set(groups.of(each)), model[each]);
            assert.equal(groups.count(each), model[each].size);
          }
        }
      }),
    );
  });
});

describe('observers', () => {
  it('are called with each value until they unsubscribe', () => {
    const observers = new Observers<[string]>();
    const calls: string[] = [];
    const observer = (text: string): void => void calls.push(text);
    const stop = observers.add(observer);
    const stopAgain = observers.add(observer);
    observers.notify('one');
    stop();
    stop();
    observers.notify('two');
    stopAgain();
    observers.notify('three');
    assert.deepEqual(calls, ['one', 'one', 'two']);
  });

  it('that another one unsubscribes during a notification are not called, and new ones not yet', () => {
    const observers = new Observers();
    const calls: string[] = [];
    observers.add(() => {
      calls.push('first');
      stopSecond();
      observers.add(() => calls.push('new'));
    });
    const stopSecond = observers.add(() => calls.push('second'));
    observers.notify();
    assert.deepEqual(calls, ['first']);
  });

  it('do not affect each other when one throws', () => {
    const errors: unknown[] = [];
    const observers = new Observers((error) => errors.push(error));
    const calls: string[] = [];
    const failure = new RangeError('observer');
    observers.add(() => {
      throw failure;
    });
    observers.add(() => calls.push('second'));
    observers.notify();
    assert.deepEqual([errors, calls], [[failure], ['second']]);
  });
});

describe('the binding label of a pod', () => {
  it('is its value, which may be empty', () => {
    assert.equal(bindingLabelOf(createPod({ labels: { aadpodidbinding: 'a' } })), 'a');
    assert.equal(bindingLabelOf(createPod({ labels: { aadpodidbinding: '' } })), '');
  });

  it('is none when the pod itself has none, whatever it inherits', () => {
    const inherited = Object.create({ aadpodidbinding: 'a' }) as Record<string, string>;
    assert.equal(bindingLabelOf(createPod({ labels: { app: 'a' } })), undefined);
    assert.equal(bindingLabelOf(createPod({ labels: inherited })), undefined);
  });
});

describe('a binding', () => {
  it('is for pods of its namespace with its label, and under its service account if it names one', () => {
    const labels = { aadpodidbinding: 'app' };
    const pod = createPod({ labels, serviceAccount: 'robot' });
    const matches = (binding: Partial<Binding>, of: Partial<Pod> = {}) =>
      matchesPod(createBinding({ selector: 'app', ...binding }), { ...pod, ...of });
    assert.deepEqual(
      [{}, { serviceAccount: 'robot' }].map((each) => matches(each)),
      [true, true],
    );
    for (const [binding, of] of [
      [{ namespace: 'other' }, {}],
      [{ selector: 'other' }, {}],
      [{ selector: '' }, { labels: { aadpodidbinding: '' } }],
      [{ serviceAccount: 'other' }, {}],
      [{}, { labels: {} }],
    ] as const) {
      assert.equal(matches(binding, of), false, JSON.stringify([binding, of]));
    }
  });
});

describe('an exception', () => {
  const labels = { app: 'Addon', tier: 'one' };

  it('applies if one of its labels is that of the pod, in any case of its value', () => {
    assert.ok(isExcepted(labels, { app: 'addon' }));
    assert.ok(isExcepted(labels, { app: 'other', tier: 'ONE' }));
  });

  it('applies to no pod without that label, and has to name one', () => {
    assert.ok(!isExcepted(labels, { App: 'addon' }));
    assert.ok(!isExcepted(labels, { app: 'one' }));
    assert.ok(!isExcepted(labels, {}));
    assert.ok(!isExcepted({}, { app: 'addon' }));
  });

  it('compares own labels only', () => {
    assert.ok(!isExcepted({}, { constructor: String(Object.prototype.constructor) }));
    assert.ok(isExcepted({ constructor: 'a' }, { constructor: 'A' }));
  });

  it('has a key of the pod exactly if it applies, whatever text its author wrote', () => {
    const ofPod = fc.string({ unit: fc.constantFrom('a', 'A') });
    const any = fc.string({ unit: fc.constantFrom('a', 'A', '=', '/') });
    const keys = (each: Record<string, string>) => exceptionKeys('n', each);
    fc.assert(
      fc.property(fc.dictionary(ofPod, ofPod), fc.dictionary(any, any), (pod, podLabels) => {
        const shared = new Set(keys(pod)).intersection(new Set(keys(podLabels)));
        assert.equal(shared.size > 0, isExcepted(pod, podLabels));
      }),
    );
    assert.deepEqual(exceptionKeys('shop', { App: 'Web' }), ['shop/App=web']);
  });
});

const clientId = '22729e47-74ce-4b43-8eea-aab5f2073309';
const ownedId = '/subscriptions/s/resourcegroups/g/x';

/** The namespaces, of these, whose pods may use each kind of identity. */
function ownersBy(owners: OwnerIndex, namespaces: readonly string[]) {
  const having = (isGranted: (namespace: string) => object | undefined): string =>
    namespaces.filter((namespace) => isGranted(namespace) !== undefined).join(' ');
  return [
    having((namespace) => owners.grantOfClientId(namespace, clientId.toUpperCase())),
    having((namespace) => owners.grantOfResourceId(namespace, `${ownedId.toUpperCase()}/`)),
    having((namespace) => owners.grantOfNodeIdentities(namespace)),
  ];
}

describe('which namespace owns an identity', () => {
  const asked = ['shop', 'pay', 'sho', 'shop-2', 'SHOP', '', '*'];
  const ids = { clientIds: [clientId], resourceIds: [ownedId] };
  for (const [name, grants, expected] of [
    ['is none while no grant names it', [{ namespaces: ['shop'] }], ['', '', '']],
    ['is none without a grant', [], ['', '', '']],
    [
      'is exactly the one that a grant names, however the id is written',
      [{ namespaces: ['shop', 'pay'], ...ids }],
      ['shop pay', 'shop pay', ''],
    ],
    [
      'is every namespace when a grant has a star',
      [{ namespaces: ['*'], clientIds: [clientId] }],
      [asked.join(' '), '', ''],
    ],
    [
      'has the identities of the node by a separate grant',
      [{ namespaces: ['pay'], nodeIdentities: true }],
      ['', '', 'pay'],
    ],
  ] as const) {
    it(name, () => {
      const owners = new OwnerIndex();
      owners.grants.replace(grants.map((grant) => createIdentityGrant(grant)));
      assert.deepEqual(ownersBy(owners, asked), expected);
      assert.equal(owners.grantOfClientId('shop', ''), undefined);
    });
  }

  it('follows the grants, also when one of several remains', () => {
    const owners = new OwnerIndex();
    let steps = 0;
    owners.onChange(() => steps++);
    const grant = (name: string, namespaces: readonly string[], nodeIdentities = false) =>
      createIdentityGrant({ name, namespaces, nodeIdentities, clientIds: [clientId] });
    owners.grants.replace([grant('a', ['shop']), grant('b', ['shop', 'pay'], true)]);
    assert.deepEqual([owners.generation, steps, owners.grants.size], [1, 1, 2]);
    const now = () => ownersBy(owners, ['shop', 'pay']);
    assert.deepEqual(now(), ['shop pay', '', 'shop pay']);
    owners.grants.remove(grant('b', []));
    assert.deepEqual(now(), ['shop', '', '']);
    owners.grants.upsert(grant('a', ['pay']));
    assert.deepEqual(now(), ['pay', '', '']);
    assert.deepEqual([owners.generation, steps], [3, 3]);
    owners.grants.upsert(grant('a', ['pay']));
    owners.grants.replace([grant('a', ['pay'])]);
    assert.deepEqual([owners.generation, steps], [3, 3], 'an equal grant is no change');
    owners.grants.replace([]);
    assert.deepEqual(now(), ['', '', '']);
  });
});

const resourceId =
  '/subscriptions/0000/resourceGroups/rg/providers/Microsoft.ManagedIdentity/' +
  'userAssignedIdentities/demo';

describe('identifiers', () => {
  it('compare client ids regardless of case and blanks', () => {
    assert.equal(normaliseClientId('  AbCd-01\n'), 'abcd-01');
    assert.equal(normaliseClientId(' \t'), '');
  });

  it('compare resource ids regardless of case, blanks and slashes', () => {
    for (const text of [
      resourceId.toUpperCase(),
      ` ${resourceId}/ `,
      `${resourceId}//`,
      resourceId.slice(1),
      `/${resourceId}`,
      resourceId.replaceAll('/', '//'),
    ]) {
      assert.equal(normaliseResourceId(text), resourceId.toLowerCase(), text);
    }
    assert.notEqual(normaliseResourceId('/a/bc'), normaliseResourceId('/ab/c'));
    for (const text of ['', ' ', '/', '///', ' / ']) assert.equal(normaliseResourceId(text), '');
  });

  it('compare resources regardless of case, blanks and trailing slashes', () => {
    for (const text of [
      'https://Vault.azure.net',
      ' https://vault.azure.net/ ',
      'https://vault.azure.net///',
    ]) {
      assert.equal(normaliseResource(text), 'https://vault.azure.net');
    }
    assert.equal(normaliseResource('/a//b'), '/a//b');
    assert.equal(normaliseResource('///'), '');
    const slashes = '/'.repeat(1_000_000);
    const before = process.cpuUsage();
    assert.equal(normaliseResource(`${slashes}x${slashes}`), `${slashes}x`);
    const { user } = process.cpuUsage(before);
    assert.ok(user < 500_000, 'in time that only grows with the length');
  });

  it('are client ids only as GUIDs, with nothing before or after', () => {
    const guid = '22729e47-74ce-4b43-8eea-aab5f2073301';
    assert.ok(isGuid(guid) && isGuid(guid.toUpperCase()));
    for (const text of [
      '',
      ` ${guid}`,
      `${guid}\n`,
      `${guid}0`,
      guid.slice(1),
      guid.replaceAll('-', ''),
      guid.replace('2', 'g'),
      guid.replace('-74ce', ''),
      guid.replace('-74ce', '-74c'),
      `x${guid}`,
    ]) {
      assert.ok(!isGuid(text), JSON.stringify(text));
    }
  });

  it('are resource ids only of user-assigned identities, in visible ASCII', () => {
    for (const text of [resourceId, resourceId.slice(1), resourceId.toUpperCase()]) {
      assert.ok(isResourceId(text), text);
    }
    for (const text of [
      '',
      '/subscriptions/',
      `x${resourceId}`,
      `/${resourceId}`,
      '/resourceGroups/subscriptions/a',
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a',
      `${resourceId}/a`,
      `${resourceId} x`,
      `${resourceId}\u0085`,
      `${resourceId}\n`,
    ]) {
      assert.ok(!isResourceId(text), JSON.stringify(text));
    }
    const long = resourceId.padEnd(1_024, 'x');
    assert.ok(isResourceId(long) && !isResourceId(`${long}x`));
  });
});

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
  fc.constant('0'),
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
  it('is IPv4 for mapped addresses too, and IPv6 as RFC 5952 requires', () => {
    for (const [text, expected] of [
      ['10.244.0.17', '10.244.0.17'],
      ['::FFFF:10.0.0.5', '10.0.0.5'],
      ['0000:0000:0000:0000:0000:ffff:0a00:0005', '10.0.0.5'],
      ['::ffff:10.0.0.5%eth0', '10.0.0.5'],
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
    const octets =
      '|10.0.0|10.0.0.0.1|10.0.0.256|10.0.0.05|010.0.0.5|10.0.0.5 |10.0.0.5:80|0x0a.0.0.5';
    const groups = ':|:::|1::2::3|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|1::2:3:4:5:6:7:8|12345::|[::1]';
    const mixed = '10.0.0.5%eth0|::ffff:10.0.0.05|::ffff:10.0.0.5.6|1:2:3:4:5:6:7:1.2.3.4|fe80::1%';
    for (const text of [octets, groups, mixed, ' |localhost'].join('|').split('|')) {
      assert.equal(canonicalIp(text), undefined, text);
    }
  });

  it('agrees with the platform on addresses, and on text that is almost one', () => {
    fc.assert(
      fc.property(fc.oneof(address, addressLike, damaged, fc.string()), (text) => {
        const ip = canonicalIp(text);
        // A second spelling of the same address, from another formatter, results in the same key.
        assert.equal(ip, canonicalIp(canonicalByPlatform(text) ?? ''));
        if (ip === undefined) return;
        assert.equal(canonicalIp(ip), ip);
        assert.equal(isIPv4(ip), !ip.includes(':'));
      }),
      { numRuns: 5000 },
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
