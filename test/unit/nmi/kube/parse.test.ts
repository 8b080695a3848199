import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  parsePod,
  type Parsed,
} from '../../../../src/nmi/kube/watch/parse.ts';

const metadata = {
  name: 'demo',
  namespace: 'shop',
  uid: 'u-1',
  resourceVersion: '7',
  cgroupUid: 'u-1',
  creationTimestamp: '2026-01-02T03:04:05Z',
};
const ref = { name: 'demo', namespace: 'shop', uid: 'u-1' };
const kept = { ...ref, resourceVersion: '7' };
const createdAtWallMs = Date.UTC(2026, 0, 2, 3, 4, 5);

/** The parsed value as plain data: label maps have no prototype. */
function valueOf<T>(parsed: Parsed<T>): unknown {
  assert.ok(parsed.ok, 'unusable');
  return JSON.parse(JSON.stringify(parsed.value));
}

function reasonOf(parsed: Parsed<unknown>): string {
  assert.ok(!parsed.ok, 'usable');
  return parsed.reason;
}

describe('a pod from the API', () => {
  it('is trimmed to the fields the agent uses', () => {
    const parsed = parsePod({
      metadata: { ...metadata, labels: { aadpodidbinding: 'x' }, managedFields: [{}] },
      spec: { hostNetwork: true, serviceAccountName: 'sa', containers: [{}] },
      status: {
        phase: 'Pending',
        podIP: '10.0.0.7',
        podIPs: [{ ip: '10.0.0.7' }, { ip: 'fd00::7' }],
      },
    });
    assert.deepEqual(valueOf(parsed), {
      ...kept,
      cgroupUid: ref.uid,
      ips: ['10.0.0.7', 'fd00::7'],
      labels: { aadpodidbinding: 'x' },
      phase: 'Pending',
      hostNetwork: true,
      serviceAccount: 'sa',
      terminating: false,
      createdAtWallMs,
    });
  });

  it('uses podIP when podIPs is absent, empty or without addresses', () => {
    for (const podIPs of [undefined, null, [], [{}], 'x', [{ ip: 4 }]]) {
      const parsed = parsePod({ metadata, status: { podIP: '10.0.0.7', podIPs } });
      assert.ok(parsed.ok);
      assert.deepEqual(parsed.value.ips, ['10.0.0.7']);
    }
  });

  it('of a static manifest has its cgroup under the hash from the kubelet', () => {
    const annotations = {
      'kubernetes.io/config.hash': '0123abcd',
      'kubernetes.io/config.mirror': '0123abcd',
    };
    const parsed = parsePod({ metadata: { ...metadata, annotations } });
    assert.ok(parsed.ok && parsed.value.cgroupUid === '0123abcd');
  });

  it('has its cgroup under its uid, whatever its author wrote into annotations', () => {
    for (const annotations of [
      { 'kubernetes.io/config.hash': 'uid-of-another' },
      { 'kubernetes.io/config.mirror': 'uid-of-another' },
      { 'kubernetes.io/config.hash': 'uid-of-another', 'kubernetes.io/config.mirror': '' },
      { 'kubernetes.io/config.hash': 'uid-of-another', 'kubernetes.io/config.mirror': 'true' },
      { 'kubernetes.io/config.hash': '', 'kubernetes.io/config.mirror': '' },
    ]) {
      const parsed = parsePod({ metadata: { ...metadata, annotations } });
      assert.ok(parsed.ok);
      assert.equal(parsed.value.cgroupUid, ref.uid);
    }
  });

  it('is terminating when it has a deletion time', () => {
    const parsed = parsePod({
      metadata: { ...metadata, deletionTimestamp: '2026-01-02T03:04:06Z' },
    });
    assert.ok(parsed.ok && parsed.value.terminating);
  });

  it('is parsed with a wrong type in any field', () => {
    const parsed = parsePod({
      metadata: { ...metadata, labels: ['x'], creationTimestamp: 'yesterday' },
      spec: 7,
      status: { phase: 'Sleeping', podIP: {} },
    });
    assert.deepEqual(valueOf(parsed), {
      ...kept,
      cgroupUid: ref.uid,
      ips: [],
      labels: {},
      phase: 'Unknown',
      hostNetwork: false,
      serviceAccount: '',
      terminating: false,
      createdAtWallMs: 0,
    });
  });

  it('has no label inherited from a JavaScript prototype', () => {
    const parsed = parsePod({ metadata: { ...metadata, labels: { a: 'b', n: 1 } } });
    assert.ok(parsed.ok);
    assert.equal(parsed.value.labels['constructor'], undefined);
    assert.deepEqual(Object.entries(parsed.value.labels), [['a', 'b']]);
  });
});

describe('an identity from the API', () => {
  it('has type 0 when the type is omitted, and empty strings for missing fields', () => {
    assert.deepEqual(valueOf(parseIdentity({ metadata, spec: {} })), {
      ...kept,
      type: 0,
      clientId: '',
      resourceId: '',
      createdAtWallMs,
    });
    assert.equal(parseIdentity({ metadata }).ok, true);
  });

  it('loses only the white space around its ids', () => {
    const parsed = parseIdentity({
      metadata,
      spec: { type: 3, clientID: '\n ABC \n', resourceID: '/subscriptions/A b\t' },
    });
    assert.ok(parsed.ok);
    assert.equal(parsed.value.type, 3);
    assert.equal(parsed.value.clientId, 'ABC');
    assert.equal(parsed.value.resourceId, '/subscriptions/A b');
  });

  it('is unusable, but named, with a type that is not an integer or an id that is not a string', () => {
    for (const spec of [{ type: '0' }, { type: 1.5 }, { clientID: 1 }, { resourceID: {} }, 'x']) {
      const parsed = parseIdentity({ metadata, spec });
      assert.ok(!parsed.ok);
      assert.deepEqual(parsed.ref, ref);
      assert.match(parsed.reason, /^spec/);
    }
  });
});

describe('the allowed resources of an identity', () => {
  it('are any if it lists none, and else those that it lists', () => {
    for (const [allowedResources, found] of [
      [undefined, undefined],
      [null, undefined],
      [['https://a.example'], ['https://a.example']],
      // In normalized form.
      [[' HTTPS://A.example//'], ['https://a.example']],
    ] as const) {
      const parsed = parseIdentity({ metadata, spec: { allowedResources } });
      assert.ok(parsed.ok);
      assert.deepEqual(parsed.value.allowedResources, found);
    }
  });

  it('are never any when the list is invalid', () => {
    for (const allowedResources of [[], '', 'https://a.example', {}, [1], ['https://a', ' '], 0]) {
      assert.match(
        reasonOf(parseIdentity({ metadata, spec: { allowedResources } })),
        /spec\.allowedResources/,
      );
    }
  });
});

describe('the time of a revocation', () => {
  it('is a date of RFC 3339, or absent', () => {
    const atMs = Date.parse('2026-11-30T06:00:00Z');
    for (const [notBefore, found] of [
      [undefined, undefined],
      [null, undefined],
      ['2026-11-30T06:00:00Z', atMs],
      ['2026-11-30T07:00:00+01:00', atMs],
      ['2026-11-30T06:00:00.25Z', atMs + 250],
    ] as const) {
      const parsed = parseIdentity({ metadata, spec: { notBefore } });
      assert.ok(parsed.ok);
      assert.equal(parsed.value.notBeforeWallMs, found);
    }
  });

  it('makes the object unusable if it is anything else', () => {
    for (const notBefore of ['', 'now', '2026-11-30', '2026-13-30T06:00:00Z', 0, {}, ['x']]) {
      assert.equal(
        reasonOf(parseIdentity({ metadata, spec: { notBefore } })),
        'spec.notBefore is no date as in RFC 3339',
      );
    }
  });
});

describe('a binding and an exception from the API', () => {
  it('have the values of their fields', () => {
    const spec = { azureIdentity: 'id', selector: ' as written ', weight: 3 };
    assert.deepEqual(valueOf(parseBinding({ metadata, spec })), {
      ...kept,
      identityName: 'id',
      selector: ' as written ',
      serviceAccount: '',
      createdAtWallMs,
    });
    const narrow = parseBinding({ metadata, spec: { ...spec, serviceAccount: 'robot' } });
    assert.equal(narrow.ok && narrow.value.serviceAccount, 'robot');
    assert.deepEqual(valueOf(parseException({ metadata, spec: { podLabels: { a: 'b', c: 1 } } })), {
      ...kept,
      podLabels: { a: 'b' },
    });
    assert.deepEqual(valueOf(parseException({ metadata })), { ...kept, podLabels: {} });
  });

  it('are unusable with fields of a wrong type', () => {
    assert.match(
      reasonOf(parseBinding({ metadata, spec: { azureIdentity: [] } })),
      /azureIdentity/,
    );
    assert.match(reasonOf(parseBinding({ metadata, spec: { selector: 1 } })), /selector/);
    assert.match(reasonOf(parseBinding({ metadata, spec: { serviceAccount: [] } })), /Account/);
    assert.match(reasonOf(parseException({ metadata, spec: { podLabels: 'a=b' } })), /podLabels/);
  });
});

describe('an object of any size', () => {
  const named = { name: 'large', namespace: 'default', uid: 'u' };
  const large = 'x'.repeat(20_000);
  const many = Object.fromEntries(
    Array.from({ length: 400 }, (_, at) => [`label-${at}`, large.slice(0, 60)]),
  );

  for (const [what, parse, object] of [
    ['an identity', parseIdentity, { metadata: named, spec: { clientID: large } }],
    ['a binding', parseBinding, { metadata: named, spec: { azureIdentity: 'a', selector: large } }],
    ['an exception', parseException, { metadata: named, spec: { podLabels: many } }],
    ['a pod', parsePod, { metadata: { ...named, labels: many } }],
  ] as const) {
    it(`is unusable and named when too much of ${what} would have to be stored`, () => {
      const parsed = parse(object);
      assert.ok(!parsed.ok);
      assert.match(parsed.reason, /more than 16384 bytes of it would have to be kept/);
      assert.equal(parsed.ref?.name, 'large');
    });
  }

  it('is read only until its stored part is too large', () => {
    let read = 0;
    const labels = {};
    for (let at = 0; at < 25_000; at++) {
      const get = () => {
        read += 1;
        return 'x'.repeat(24);
      };
      Object.defineProperty(labels, `label-${at}`, { enumerable: true, get });
    }
    assert.ok(!parsePod({ metadata: { ...named, labels } }).ok);
    assert.ok(read < 1_000, `${read} of 25,000 labels were read`);
  });

  it('is usable when the stored part is small', () => {
    const annotations = { note: large };
    assert.ok(parsePod({ metadata: { ...named, annotations }, spec: { note: large } }).ok);
  });
});

describe('every parser', () => {
  const parsers = [parsePod, parseIdentity, parseBinding, parseException];

  it('names the missing part of the metadata', () => {
    for (const parse of parsers) {
      assert.match(reasonOf(parse({})), /metadata/);
      for (const key of ['name', 'namespace', 'uid']) {
        assert.match(reasonOf(parse({ metadata: { ...metadata, [key]: '' } })), /metadata/);
      }
    }
  });

  it('never throws, for any input', () => {
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
        for (const parse of parsers) assert.equal(typeof parse(raw).ok, 'boolean');
      }),
      { numRuns: 500 },
    );
  });
});

describe('a grant from the API', () => {
  const named = { name: 'shop', uid: 'u-1', resourceVersion: '7' };

  it('belongs to the cluster, and has its ids in normalized form', () => {
    const parsed = parseIdentityGrant({
      metadata: named,
      spec: {
        namespaces: ['shop', '*'],
        clientIDs: [' AB '],
        resourceIDs: ['/Subscriptions/S//x/'],
        nodeIdentities: true,
      },
    });
    assert.deepEqual(valueOf(parsed), {
      namespace: '',
      name: 'shop',
      uid: 'u-1',
      resourceVersion: '7',
      namespaces: ['shop', '*'],
      clientIds: ['ab'],
      resourceIds: ['/subscriptions/s/x'],
      nodeIdentities: true,
    });
  });

  it('grants nothing if it names nothing', () => {
    const empty = { namespaces: [], clientIds: [], resourceIds: [], nodeIdentities: false };
    for (const spec of [undefined, null, {}, { namespaces: null, clientIDs: [] }]) {
      assert.deepEqual(valueOf(parseIdentityGrant({ metadata: named, spec })), {
        namespace: '',
        ...named,
        ...empty,
      });
    }
  });

  it('is unusable as a whole when one part is wrong', () => {
    const wrong: readonly (readonly [spec: unknown, reason: RegExp])[] = [
      ['x', /spec is not an object/],
      [{ namespaces: 'shop' }, /spec\.namespaces/],
      [{ namespaces: ['shop', 1] }, /spec\.namespaces/],
      [{ namespaces: ['shop', ' '] }, /spec\.namespaces/],
      [{ clientIDs: [null] }, /spec\.clientIDs/],
      [{ resourceIDs: {} }, /spec\.resourceIDs/],
      [{ nodeIdentities: 'true' }, /spec\.nodeIdentities/],
      [{ resourceIDs: ['x'.repeat(65_537)] }, /more than 65536 bytes/],
    ];
    for (const [spec, reason] of wrong) {
      const parsed = parseIdentityGrant({ metadata: named, spec });
      assert.match(reasonOf(parsed), reason);
      assert.ok(!parsed.ok && parsed.ref?.name === 'shop');
    }
  });

  it('with a namespace is invalid, like an identity without one', () => {
    assert.match(reasonOf(parseIdentityGrant({ metadata })), /metadata\.name or metadata\.uid/);
    assert.match(reasonOf(parseIdentityGrant({ metadata: { uid: 'u' } })), /metadata\.name/);
    assert.match(reasonOf(parseIdentity({ metadata: named })), /metadata\.namespace/);
  });

  it('may be as large as its schema allows', () => {
    const spec = {
      namespaces: Array.from({ length: 64 }, () => 'n'.repeat(63)),
      clientIDs: Array.from({ length: 256 }, () => 'c'.repeat(36)),
      resourceIDs: Array.from({ length: 64 }, () => `/subscriptions/${'r'.repeat(497)}`),
    };
    assert.ok(parseIdentityGrant({ metadata: named, spec }).ok);
  });
});
