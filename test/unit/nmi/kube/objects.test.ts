/** What is stored of an object, and for how much memory. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { JsonRecord } from '../../../../src/base/json-value.ts';
import type { Binding } from '../../../../src/cache/index/objects.ts';
import { createDecoder } from '../../../../src/nmi/kube/watch/decoder.ts';
import {
  maxExceptionBytes,
  maxNamespaceBytes,
  NamespaceUsage,
  textBytes,
} from '../../../../src/nmi/kube/watch/namespace-usage.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  parsePod,
  type Parse,
} from '../../../../src/nmi/kube/watch/parse.ts';
import { readPod } from '../../../../src/nmi/kube/watch/read-pod.ts';
import { usedHeap } from '../../../support/heap.ts';
import { MapStore } from './kube-test-bed.ts';

const ref = { name: 'demo', namespace: 'shop', uid: 'u-1' };
const kept = { ...ref, resourceVersion: '7' };
const metadata = { ...kept, creationTimestamp: '2026-01-02T03:04:05Z' };
const createdAtWallMs = Date.UTC(2026, 0, 2, 3, 4, 5);

/** The parsed value as plain data: label maps have no prototype. */
function valueOf<T>(parse: Parse<T>, object: unknown): T {
  const parsed = parse(object);
  assert.ok(parsed.ok, 'unusable');
  return JSON.parse(JSON.stringify(parsed.value)) as T;
}

function reasonOf(parse: Parse<unknown>, object: unknown): string {
  const parsed = parse(object);
  assert.ok(!parsed.ok, 'usable');
  return parsed.reason;
}

describe('a pod from the API', () => {
  it('is trimmed to the fields the agent uses, and parsed with a wrong type in any', () => {
    const pod = {
      ...kept,
      cgroupUid: ref.uid,
      ips: ['10.0.0.7', 'fd00::7'],
      labels: { aadpodidbinding: 'x' },
      phase: 'Pending',
      hostNetwork: true,
      serviceAccount: 'sa',
      terminating: true,
      createdAtWallMs,
    };
    const deletionTimestamp = '2026-01-02T03:04:06Z';
    const parsed = valueOf(parsePod, {
      metadata: { ...metadata, labels: pod.labels, managedFields: [{}], deletionTimestamp },
      spec: { hostNetwork: true, serviceAccountName: 'sa', containers: [{}] },
      status: { phase: 'Pending', podIP: '10.0.0.7', podIPs: pod.ips.map((ip) => ({ ip })) },
    });
    assert.deepEqual(parsed, pod);
    const odd = valueOf(parsePod, {
      metadata: { ...metadata, labels: ['x'], creationTimestamp: 'yesterday' },
      spec: 7,
      status: { phase: 'Sleeping', podIP: {} },
    });
    assert.deepEqual(odd, {
      ...pod,
      ips: [],
      labels: {},
      phase: 'Unknown',
      hostNetwork: false,
      serviceAccount: '',
      terminating: false,
      createdAtWallMs: 0,
    });
  });

  it('uses podIP when podIPs is absent, empty or without addresses', () => {
    for (const podIPs of [undefined, null, [], [{}], 'x', [{ ip: 4 }]]) {
      const { ips } = valueOf(parsePod, { metadata, status: { podIP: '10.0.0.7', podIPs } });
      assert.deepEqual(ips, ['10.0.0.7']);
    }
  });

  it('has its cgroup under its uid, unless the kubelet wrote that it is a static one', () => {
    for (const [hash, mirror, cgroupUid] of [
      ['0123abcd', '0123abcd', '0123abcd'],
      ['another', undefined, ref.uid],
      [undefined, 'another', ref.uid],
      ['another', '', ref.uid],
      ['another', 'true', ref.uid],
      ['', '', ref.uid],
    ] as const) {
      const annotations = {
        ...(hash === undefined ? {} : { 'kubernetes.io/config.hash': hash }),
        ...(mirror === undefined ? {} : { 'kubernetes.io/config.mirror': mirror }),
      };
      const pod = valueOf(parsePod, { metadata: { ...metadata, annotations } });
      assert.equal(pod.cgroupUid, cgroupUid);
    }
  });

  it('has no label inherited from a JavaScript prototype', () => {
    const parsed = parsePod({ metadata: { ...metadata, labels: { a: 'b', n: 1 } } });
    assert.ok(parsed.ok);
    assert.equal(parsed.value.labels['constructor'], undefined);
    assert.deepEqual(Object.entries(parsed.value.labels), [['a', 'b']]);
  });

  it('can be read by its name', async () => {
    const pod = { metadata, status: { podIPs: [{ ip: '10.0.0.5' }] } };
    const path =
      '/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Ddemo%2Cspec.nodeName%3Dnode-a';
    for (const [answer, ips] of [
      [{ items: [pod] }, ['10.0.0.5']],
      [{ items: [] }, undefined],
      [{ items: [{ metadata: { ...metadata, name: 'other' } }] }, undefined],
      [{ items: [{ metadata: { name: 'demo' } }] }, undefined],
      [{ items: 'none' }, undefined],
      ['no list', undefined],
    ] as const) {
      const paths: string[] = [];
      const getJson = (of: string) => {
        paths.push(of);
        return Promise.resolve(answer);
      };
      assert.deepEqual((await readPod({ getJson }, 'node-a', ref))?.ips, ips);
      assert.deepEqual(paths, [path]);
    }
  });
});

describe('a custom resource from the API', () => {
  const unrestricted = { type: 0, clientId: '', resourceId: '', createdAtWallMs };
  const binding = { identityName: 'id', selector: ' as written ', serviceAccount: '' };
  const bound = { azureIdentity: 'id', selector: ' as written ', weight: 3 };
  const values: readonly (readonly [title: string, Parse<object>, spec: unknown, value: object])[] =
    [
      ['an identity with nothing', parseIdentity, {}, unrestricted],
      [
        'white space around ids',
        parseIdentity,
        { type: 3, clientID: '\n ABC \n', resourceID: '/subscriptions/A b\t' },
        { ...unrestricted, type: 3, clientId: 'ABC', resourceId: '/subscriptions/A b' },
      ],
      ['any resource', parseIdentity, { allowedResources: null, notBefore: null }, unrestricted],
      [
        'normalized resources',
        parseIdentity,
        { allowedResources: [' HTTPS://A.example//'] },
        { ...unrestricted, allowedResources: ['https://a.example'] },
      ],
      ...['2026-11-30T06:00:00.25Z', '2026-11-30T07:00:00.25+01:00'].map(
        (notBefore) =>
          [
            `the time ${notBefore}`,
            parseIdentity,
            { notBefore },
            { ...unrestricted, notBeforeWallMs: Date.UTC(2026, 10, 30, 6, 0, 0, 250) },
          ] as const,
      ),
      ['a binding', parseBinding, bound, { ...binding, createdAtWallMs }],
      [
        'a binding for one account',
        parseBinding,
        { ...bound, serviceAccount: 'robot' },
        { ...binding, serviceAccount: 'robot', createdAtWallMs },
      ],
      ['an exception', parseException, { podLabels: { a: 'b', c: 1 } }, { podLabels: { a: 'b' } }],
      ['an exception of nothing', parseException, undefined, { podLabels: {} }],
    ];
  for (const [title, parse, spec, value] of values) {
    it(`has the values of its fields: ${title}`, () => {
      const { entra: _, ...parsed } = valueOf(parse, { metadata, spec }) as Record<string, unknown>;
      assert.deepEqual(parsed, { ...kept, ...value });
    });
  }

  const unusable: readonly [Parse<unknown>, field: string, values: readonly unknown[]][] = [
    [parseIdentity, 'type', ['0', 1.5]],
    [parseIdentity, 'clientID', [1]],
    [parseIdentity, 'resourceID', [{}]],
    // Never taken for any resource.
    [
      parseIdentity,
      'allowedResources',
      [[], '', 'https://a.example', {}, [1], ['https://a', ' '], 0],
    ],
    [parseIdentity, 'notBefore', ['', 'now', '2026-11-30', '2026-13-30T06:00:00Z', 0, {}, ['x']]],
    [parseBinding, 'azureIdentity', [[]]],
    [parseBinding, 'selector', [1]],
    [parseBinding, 'serviceAccount', [[]]],
    [parseException, 'podLabels', ['a=b']],
    // Unusable as a whole when one part is wrong.
    [parseIdentityGrant, 'namespaces', ['shop', ['shop', 1], ['shop', ' ']]],
    [parseIdentityGrant, 'clientIDs', [[null]]],
    [parseIdentityGrant, 'resourceIDs', [{}]],
    [parseIdentityGrant, 'nodeIdentities', ['true']],
  ];
  for (const [parse, field, wrong] of unusable) {
    it(`is unusable, but named, with a wrong ${field}`, () => {
      const { namespace, ...named } = metadata;
      const isGrant = parse === parseIdentityGrant;
      for (const value of wrong) {
        const object = { metadata: isGrant ? named : metadata, spec: { [field]: value } };
        assert.match(reasonOf(parse, object), new RegExp(`^spec\\.${field} `));
        const parsed = parse(object);
        assert.ok(!parsed.ok);
        assert.deepEqual(parsed.ref, { ...ref, namespace: isGrant ? '' : namespace });
      }
    });
  }

  const grantMetadata = { name: 'shop', uid: 'u-1', resourceVersion: '7' };
  const empty = { namespaces: [], clientIds: [], resourceIds: [], nodeIdentities: false };

  it('that is a grant belongs to the cluster, and has its ids in normalized form', () => {
    const full = {
      namespaces: ['shop', '*'],
      clientIDs: [' AB '],
      resourceIDs: ['/Subscriptions/S//x/'],
      nodeIdentities: true,
    };
    const { namespaces, nodeIdentities } = full;
    const ids = { clientIds: ['ab'], resourceIds: ['/subscriptions/s/x'] };
    for (const [spec, value] of [
      [full, { namespaces, nodeIdentities, ...ids }],
      [undefined, empty],
      [null, empty],
      [{}, empty],
      [{ namespaces: null, clientIDs: [] }, empty],
    ] as const) {
      const parsed = valueOf(parseIdentityGrant, { metadata: grantMetadata, spec });
      assert.deepEqual(parsed, { namespace: '', ...grantMetadata, ...value });
    }
  });

  it('is unusable without the parts of the metadata that its scope requires', () => {
    for (const parse of [parsePod, parseIdentity, parseBinding, parseException]) {
      assert.match(reasonOf(parse, {}), /metadata/);
      for (const key of ['name', 'namespace', 'uid']) {
        const object = { metadata: { ...metadata, [key]: '' } };
        assert.match(reasonOf(parse, object), /metadata/);
      }
    }
    assert.match(reasonOf(parseIdentityGrant, { metadata }), /metadata\.name or metadata\.uid/);
    assert.match(reasonOf(parseIdentityGrant, { metadata: { uid: 'u' } }), /metadata\.name/);
    assert.match(reasonOf(parseIdentity, { metadata, spec: 'x' }), /^spec is not an object/);
  });

  it('never makes a parser throw', () => {
    const field = fc.oneof(fc.anything(), fc.string(), fc.constant(undefined));
    const shaped = fc.record({
      metadata: fc.oneof(field, fc.constant(metadata), fc.record({ labels: field, uid: field })),
      spec: fc.oneof(
        field,
        fc.record({ type: field, clientID: field, selector: field, podLabels: field }),
      ),
      status: fc.oneof(field, fc.record({ phase: field, podIPs: fc.array(field), podIP: field })),
    });
    fc.assert(
      fc.property(fc.oneof(fc.anything(), shaped), (raw) => {
        for (const parse of [parsePod, parseIdentity, parseBinding, parseException]) {
          assert.equal(typeof parse(raw).ok, 'boolean');
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('an object of any size', () => {
  const large = 'x'.repeat(20_000);
  const strings = (count: number, text: string) => Array.from({ length: count }, () => text);
  const labels = Object.fromEntries(strings(400, '').map((_, at) => [`l-${at}`, 'x'.repeat(60)]));
  const { namespace: _, ...named } = metadata;

  for (const [what, parse, object, limit] of [
    ['an identity', parseIdentity, { metadata, spec: { clientID: large } }, 16_384],
    ['a binding', parseBinding, { metadata, spec: { selector: large } }, 16_384],
    ['an exception', parseException, { metadata, spec: { podLabels: labels } }, 16_384],
    ['a pod', parsePod, { metadata: { ...metadata, labels } }, 16_384],
    [
      'a grant',
      parseIdentityGrant,
      { metadata: named, spec: { resourceIDs: ['x'.repeat(65_537)] } },
      65_536,
    ],
  ] as const) {
    it(`is unusable and named when too much of ${what} would have to be stored`, () => {
      const reason = new RegExp(`more than ${limit} bytes of it would have to be kept`);
      assert.match(reasonOf(parse, object), reason);
      const parsed = parse(object);
      assert.ok(!parsed.ok && parsed.ref?.name === 'demo');
    });
  }

  it('is read only until its stored part is too large', () => {
    let read = 0;
    const many = {};
    for (let at = 0; at < 25_000; at++) {
      const get = () => {
        read += 1;
        return 'x'.repeat(24);
      };
      Object.defineProperty(many, `label-${at}`, { enumerable: true, get });
    }
    assert.ok(!parsePod({ metadata: { ...metadata, labels: many } }).ok);
    assert.ok(read < 1_000, `${read} of 25,000 labels were read`);
  });

  it('is usable when its stored part is small, or what the schema of a grant allows', () => {
    const annotations = { note: large };
    assert.ok(parsePod({ metadata: { ...metadata, annotations }, spec: { note: large } }).ok);
    const spec = {
      namespaces: strings(64, 'n'.repeat(63)),
      clientIDs: strings(256, 'c'.repeat(36)),
      resourceIDs: strings(64, `/subscriptions/${'r'.repeat(497)}`),
    };
    assert.ok(parseIdentityGrant({ metadata: named, spec }).ok);
  });
});

describe('the memory of texts', () => {
  it('is that of keys and strings at every depth, and nothing else', () => {
    for (const [value, bytes] of [
      ['four', 4],
      [{ ab: 'c', de: { f: 'gh' }, i: true, j: undefined }, 10],
      ...[undefined, null, 7, true, [], {}].map((nothing) => [nothing, 0] as const),
      // Twice the number of characters where one is beyond Latin-1.
      ['naïve', 5],
      ['\u0100xx', 6],
      [{ キー: { x: '値', y: 'x' } }, 9],
      // 48 more for each string of a list, and for each key and value of a map.
      [['a', 'bc', 1], 3 + 3 * 48],
      [{ map: Object.setPrototypeOf({ a: 'b', cd: '' }, null) as unknown }, 3 + 4 + 4 * 48],
    ] as const) {
      assert.equal(textBytes(value), bytes);
    }
  });

  const short = (count: number, of: number) =>
    Array.from({ length: count }, (_, at) => (of * count + at).toString(36).padStart(4, 'z'));
  const labelled = (count: number, value: (key: string) => string) => (of: number) => ({
    podLabels: Object.fromEntries(short(count, of).map((key) => [key, value(key)])),
  });
  const listed = (of: number) => ({ type: 1, auxiliaryTenantIDs: short(300, of) });

  for (const [what, parse, specOf] of [
    ['64 short labels', parseException, labelled(64, () => '')],
    ['43 short labels', parseException, labelled(43, (key) => `v${key}`)],
    ['as many labels as possible', parseException, labelled(163, () => '')],
    ['a long list', parseIdentity, listed],
  ] as const) {
    it(`is not much more than is counted for objects with ${what}`, async () => {
      const usage = new NamespaceUsage();
      const stored: unknown[] = [];
      const before = await usedHeap();
      for (let at = 0; at < 500; at++) {
        const own = { namespace: 'a', name: `x-${at}`, uid: `uid-${at}` };
        const raw: unknown = JSON.parse(JSON.stringify({ metadata: own, spec: specOf(at) }));
        const parsed = parse(raw);
        assert.ok(parsed.ok && usage.add(parsed.value, parsed.texts));
        stored.push(parsed.value);
      }
      const used = (await usedHeap()) - before;
      assert.equal(stored.length, 500);
      assert.ok(used < 1.5 * usage.total, `${used} bytes, counted as ${usage.total}`);
    });
  }
});

describe('the usage of namespaces', () => {
  const object = (namespace: string, at: number, length: number) => ({
    namespace,
    name: `object-${at}`,
    uid: `${namespace}-${at}`,
    text: 'x'.repeat(length),
  });

  it('is the sum of what was added and not removed, in any order', () => {
    const step = fc.record({
      namespace: fc.constantFrom('a', 'b', 'c'),
      at: fc.nat(5),
      length: fc.nat(100),
      isRemoval: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const usage = new NamespaceUsage();
        const left = new Map<string, number>();
        for (const { namespace, at, length, isRemoval } of steps) {
          const each = object(namespace, at, length);
          if (isRemoval) usage.remove(each);
          else assert.ok(usage.add(each));
          left.set(each.uid, isRemoval ? 0 : 512 + textBytes(each));
        }
        const expected = [...left.values()].reduce((sum, bytes) => sum + bytes, 0);
        assert.equal(usage.total, expected);
      }),
    );
  });

  it('may be exactly the limit, which may be another', () => {
    for (const limit of [undefined, maxExceptionBytes]) {
      const texts = (limit ?? maxNamespaceBytes) - 512;
      const add = (more: number) =>
        new NamespaceUsage().add(object('a', 1, 0), texts + more, limit);
      assert.deepEqual([add(0), add(1)], [true, false]);
    }
  });
});

function rawBinding(name: string, uid: string, selector: unknown = 'web'): JsonRecord {
  return { metadata: { namespace: 'shop', name, uid }, spec: { azureIdentity: 'id', selector } };
}

function openDecoder() {
  const store = new MapStore<Binding>();
  const skips: string[] = [];
  const decoder = createDecoder({
    parse: parseBinding,
    store,
    onSkip: (of, reason) => skips.push(`${of?.name ?? 'nobody'}: ${reason}`),
  });
  const uids = () => [...store.items.values()].map(({ uid }) => uid).sort();
  return { skips, store, decoder, uids };
}

describe('an object of a watch', () => {
  const unusable = 'spec.selector is not a string';

  it('is stored, changed and removed', () => {
    const { store, decoder, uids } = openDecoder();
    decoder.changed(rawBinding('one', 'one-1', 'old'));
    decoder.changed(rawBinding('two', 'two-1'));
    decoder.changed(rawBinding('one', 'one-1', 'new'));
    assert.equal(store.items.get('shop/one')?.selector, 'new');
    decoder.deleted(rawBinding('one', 'one-1'));
    assert.deepEqual([uids(), decoder.objects], [['two-1'], 1]);
  });

  it('that became unusable is removed, and reported once until the reason changes', () => {
    const { decoder, skips, uids } = openDecoder();
    decoder.changed(rawBinding('one', 'one-1'));
    for (const selector of [7, 8]) decoder.changed(rawBinding('one', 'one-1', selector));
    assert.deepEqual(uids(), []);
    assert.deepEqual([skips, decoder.rejected], [[`one: ${unusable}`], 2]);
    decoder.changed({ ...rawBinding('one', 'one-1'), spec: 7 });
    assert.deepEqual(skips, [`one: ${unusable}`, 'one: spec is not an object']);
    decoder.changed(rawBinding('one', 'one-1'));
    decoder.changed(rawBinding('one', 'one-1', 7));
    assert.equal(skips.length, 3, 'it was usable in between');
  });

  it('that could not be decoded is removed, and left out of a list, if it has a name', () => {
    const { decoder, skips, uids } = openDecoder();
    const one = { namespace: 'shop', name: 'one', uid: 'one-1' };
    decoder.changed(rawBinding('one', 'one-1'));
    decoder.reject(one, 'too long');
    assert.deepEqual(uids(), []);
    const list = decoder.gather();
    for (const name of ['one', 'two']) list.changed(rawBinding(name, `${name}-1`));
    list.reject(one, 'too long');
    list.reject(undefined, 'too long');
    list.commit();
    assert.deepEqual(uids(), ['two-1']);
    assert.deepEqual(skips, ['one: too long', 'one: too long', 'nobody: too long']);
    assert.equal(decoder.rejected, 3, 'the list had a usable version in between');
  });

  it('that is deleted may be unusable, but must have a name', () => {
    const { decoder, skips, uids } = openDecoder();
    decoder.changed(rawBinding('one', 'one-1'));
    decoder.deleted(rawBinding('one', 'one-1', 7));
    assert.deepEqual([uids(), skips], [[], []]);
    assert.throws(() => decoder.deleted({ metadata: {} }), { code: 'MALFORMED' });
    decoder.changed({ metadata: {} });
    assert.match(skips[0] ?? '', /^nobody: metadata\.namespace/);
  });

  it('that changes while a list is gathered is in it as it was last, or not at all', () => {
    const { store, decoder, uids } = openDecoder();
    const list = decoder.gather();
    for (const [name, selector] of [
      ['one', 'web'],
      ['two', 'old'],
      ['four', 'web'],
    ] as const) {
      list.changed(rawBinding(name, `${name}-1`, selector));
    }
    list.deleted(rawBinding('one', 'one-1'));
    list.changed(rawBinding('three', 'three-1'));
    list.changed(rawBinding('one', 'one-2'));
    list.deleted(rawBinding('three', 'three-1'));
    list.changed(rawBinding('two', 'two-1', 'new'));
    list.changed(rawBinding('four', 'four-1', 7));
    list.commit();
    assert.deepEqual(uids(), ['one-2', 'two-1']);
    assert.equal(store.items.get('shop/two')?.selector, 'new');
    assert.deepEqual([decoder.objects, decoder.rejected], [2, 1]);
  });
});

describe('the objects of one namespace', () => {
  const noRoom = /already take 24 MiB; delete some of this kind/;
  const largest = 'x'.repeat(16_000);

  function large(at: number, namespace = 'shop'): JsonRecord {
    const own = { namespace, name: `large-${at}`, uid: `${namespace}-${at}` };
    return { metadata: own, spec: { azureIdentity: 'id', selector: largest } };
  }

  function fill(changes: { changed(object: unknown): void }, count: number): void {
    for (let at = 0; at < count; at++) changes.changed(large(at));
  }

  it('take 24 MiB at most, and have room again when some are deleted', () => {
    const { decoder, skips, store } = openDecoder();
    for (let round = 0; round < 3; round++) fill(decoder, 1_500);
    assert.deepEqual(skips, [], 'former versions take no room');
    fill(decoder, 1_600);
    const limitBytes = 24 * 1024 * 1024;
    assert.ok(decoder.bytes <= limitBytes && decoder.bytes > limitBytes - 20_000);
    const refused = skips.length;
    assert.equal(refused, 1_600 - store.items.size);
    assert.match(skips[0] ?? '', noRoom);
    decoder.changed(large(0, 'team-b'));
    assert.ok(store.items.has('team-b/large-0'), 'another namespace has room');
    decoder.deleted(large(0, 'team-b'));
    for (let at = 0; at < 100; at++) decoder.deleted(large(at));
    for (let at = 1_500; at < 1_590; at++) decoder.changed(large(at));
    assert.equal(skips.length, refused);
    for (let at = 0; at < 1_600; at++) decoder.deleted(large(at));
    assert.equal(decoder.bytes, 0);
  });

  it('take no more by a list, which counts alone from then on', () => {
    const { decoder, skips, store } = openDecoder();
    fill(decoder, 1_500);
    const list = decoder.gather();
    fill(list, 1_600);
    list.deleted(large(0));
    list.commit();
    assert.match(skips[0] ?? '', noRoom);
    assert.ok(store.items.size > 1_500 && !store.items.has('shop/large-0'));
    decoder.gather().commit();
    assert.equal(decoder.bytes, 0);
    fill(decoder, 1_500);
    assert.equal(store.items.size, 1_500);
  });

  it('that find no room lose the version that was stored', () => {
    const { decoder, store } = openDecoder();
    fill(decoder, 1_523);
    decoder.changed(rawBinding('small', 'small-1'));
    assert.ok(store.items.has('shop/small'));
    const before = decoder.bytes;
    decoder.changed(rawBinding('small', 'small-1', largest));
    assert.ok(!store.items.has('shop/small'));
    assert.ok(decoder.bytes < before);
  });
});
