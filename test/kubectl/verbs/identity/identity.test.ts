import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { ordersId, tenant } from '../../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  clientB,
  createBinding,
  createIdentity,
  createPod,
  kinds,
  ok,
  play,
  type Recorded,
} from '../../support/recorded-kubectl.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';

const issuer = ok('{"issuer":"https://oidc.example/1/"}');

function testBedOf(changes = {}): Recorded {
  return { ...boundTestBed(changes), other: () => issuer };
}

describe('kubectl nmi identity', () => {
  it('needs a verb', async () => {
    const { code, stderr } = await play(['identity'], testBedOf());
    assert.deepEqual([code, stderr.includes('No verb is given after identity.')], [2, true]);
  });

  for (const [action, example] of [
    ['add', 'add orders --resource-id '],
    ['add', 'add orders --type federated '],
    ['add', 'add agent --type chain '],
    ['list', 'list -A'],
    ['assign', 'assign orders'],
    ['federate', 'federate orders'],
  ] as const) {
    it(`${action} has the example ${example} in its help`, async () => {
      const { stdout } = await play(['identity', action, '--help']);
      const [, examples = ''] = stdout.split('Examples:');
      assert.ok(examples.includes(`  kubectl nmi identity ${example}`), stdout);
    });
  }
});

describe('kubectl nmi identity add', () => {
  it('prints the object', async () => {
    const { stdout } = await play(
      ['identity', 'add', 'new', '--client-id', clientA, '--resource-id', ordersId],
      testBedOf(),
    );
    assert.match(
      stdout,
      /kind: AzureIdentity\nmetadata:\n {2}name: new\n {2}namespace: shop\nspec:\n {2}type: 0\n {2}resourceID: [^\n]+\n {2}clientID: 431054d5/,
    );
    assert.match(
      stdout,
      /# Then bind it: kubectl nmi identity assign new -n shop --context=dev\n$/,
    );
    assert.match(stdout, /^# In context dev, namespace shop:\n/);
  });

  it('needs one id where the node has the identity, since the agent does', async () => {
    const chain = ['--type', 'chain', '--application', clientB, '--tenant-id', tenant];
    for (const more of [[], chain]) {
      const words = ['identity', 'add', 'new', '--resource-id', ordersId, ...more];
      const { code, stdout } = await play(words, testBedOf());
      const { spec } = parse(stdout) as { spec: Record<string, unknown> };
      assert.deepEqual([code, spec['resourceID'], 'clientID' in spec], [0, ordersId, false]);
    }
  });

  it('adds nothing that is there already', async () => {
    const words = ['identity', 'add', 'orders', '--client-id', clientA, '--apply'];
    const { code, stdout, calls } = await play(words, testBedOf());
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /^# AzureIdentity shop\/orders is there already\.\n# Then bind it: /);
  });

  it('names what is missing, with the line that finds it', async () => {
    const wrong: readonly (readonly [words: readonly string[], said: RegExp])[] = [
      [['new'], /client id is missing[^]*az identity list/],
      [
        ['new', '--resource-id', ordersId, '--type', 'federated', '--tenant-id', tenant],
        /client id is missing[^]*az identity show --ids/,
      ],
      [
        ['new', '--resource-id', ordersId, '--client-id', 'mine'],
        /client id is missing or is no GUID/,
      ],
      [['new', '--client-id', 'mine'], /client id is missing or is no GUID[^]*az identity list/],
      [['new', '--resource-id', 'orders'], /orders is no Azure resource id/],
      [['New!', '--client-id', clientA], /cannot be the name of an object/],
      [['new', '--type', 'federated', '--client-id', clientA], /type federated needs a tenant/],
      [
        ['new', '--type', 'secret', '--client-id', clientA, '--tenant-id', tenant],
        /needs a Secret/,
      ],
      [
        ['new', '--client-id', clientA, '--federation', 'binding'],
        /type user-assigned has no federation/,
      ],
      [
        ['new', '--client-id', clientA, '--application', clientB],
        /type user-assigned has no application[^]*--type chain/,
      ],
      [
        ['new', '--type', 'federated', '--client-id', clientA, '--agent-identity', clientB],
        /type federated has no agent identity[^]*--type chain/,
      ],
      [
        ['new', '--client-id', clientA, '--secret', 'pfx'],
        /type user-assigned has no Secret[^]*--type secret or certificate/,
      ],
    ];
    for (const [words, said] of wrong) {
      const result = await play(['identity', 'add', ...words], testBedOf());
      assert.equal(result.code, 2, words.join(' '));
      assert.match(result.stderr, said);
      assert.equal(result.stdout, '');
    }
  });

  it('adds a chain, and names the id that pods ask by', async () => {
    const words = ['identity', 'add', 'new', '--type', 'chain', '--client-id', clientA];
    const of = ['--application', clientB, '--tenant-id', tenant];
    const application = { tenantID: tenant, clientID: clientB };
    const { stdout } = await play([...words, ...of], testBedOf());
    const { spec } = parse(stdout) as { spec: object };
    assert.deepEqual(spec, { type: 4, clientID: clientA, application });
    assert.ok(stdout.includes(`# Pods name it by the client id ${clientB}.`), stdout);
    const ofAgent = await play([...words, ...of, '--agent-identity', tenant], testBedOf());
    assert.ok(ofAgent.stdout.includes(`agentIdentity: ${tenant}`), ofAgent.stdout);
    assert.ok(ofAgent.stdout.includes(`by the client id ${tenant}.`), ofAgent.stdout);
    for (const [more, says] of [
      [['--tenant-id', tenant], /needs the client id of an application/],
      [['--application', clientB], /needs a tenant/],
    ] as const) {
      const refused = await play([...words, ...more], testBedOf());
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, says);
    }
  });

  it('adds an agent identity whose blueprint trusts a service account', async () => {
    const add = ['identity', 'add', 'new', '--type', 'chain'];
    const ids = ['--application', clientB, '--tenant-id', tenant];
    const agent = ['--agent-identity', clientA];
    const application = { tenantID: tenant, clientID: clientB };
    const [pod, node, binding] = [
      ['--federation', 'pod'],
      ['--federation', 'node'],
      ['--federation', 'binding'],
    ] as const;
    for (const federation of [pod, node]) {
      const { stdout } = await play([...add, ...ids, ...agent, ...federation], testBedOf());
      const { spec } = parse(stdout) as { spec: object };
      assert.deepEqual(spec, {
        type: 4,
        application,
        agentIdentity: clientA,
        federation: federation[1],
      });
      assert.ok(stdout.includes(`# Pods name it by the client id ${clientA}.`), stdout);
    }
    for (const [words, says] of [
      [[...agent, ...pod, '--client-id', clientA], /has no managed identity/],
      [
        [...agent, ...pod, '--resource-id', ordersId],
        /Leave out --client-id and --resource-id, or --federation/,
      ],
      [pod, /needs an agent identity[^]*--type federated/],
      [[...agent, ...binding], /Give --federation pod or node/],
      [agent, /client id is missing/],
    ] as const) {
      const { code, stdout, stderr } = await play([...add, ...ids, ...words], testBedOf());
      assert.deepEqual([code, stdout], [2, '']);
      assert.match(stderr, says);
    }
  });

  it('writes whose service account a federated one has', async () => {
    const words = ['--client-id', clientA, '--tenant-id', tenant, '--federation', 'binding'];
    const add = ['identity', 'add', 'new', '--type', 'federated', ...words];
    const { spec } = parse((await play(add, testBedOf())).stdout) as { spec: object };
    const expected = { type: 3, clientID: clientA, tenantID: tenant, federation: 'binding' };
    assert.deepEqual(spec, expected);
  });

  it('names the Secret of a type that has one', async () => {
    const words = [
      'identity',
      'add',
      'new',
      '--type',
      'certificate',
      '--client-id',
      clientA,
      '--tenant-id',
      tenant,
      '--secret',
      'pfx',
    ];
    const { spec } = parse((await play(words, testBedOf())).stdout) as { spec: object };
    assert.deepEqual(spec, {
      type: 2,
      clientID: clientA,
      tenantID: tenant,
      clientPassword: { name: 'pfx' },
    });
  });
});

describe('kubectl nmi identity list', () => {
  it('list shows selectors and pods', async () => {
    const testBed = testBedOf({
      pods: ['a', 'b', 'c', 'd'].map((name) =>
        createPod(name, { labels: { aadpodidbinding: 'orders' } }),
      ),
      [kinds.identities]: [createIdentity('orders'), createIdentity('far', {}, { namespace: 'x' })],
    });
    const { stdout } = await play(['identity', 'list'], testBed);
    assert.match(
      stdout,
      /^NAMESPACE +NAME +TYPE[^\n]+\nshop +orders +user-assigned +431054d5\S+ +orders +a,b,c and 1 more\n$/,
    );
    const application = { tenantID: tenant, clientID: clientB };
    const chain = createIdentity('orders', { type: 4, clientID: clientA, application });
    const ofChain = testBedOf({ [kinds.identities]: [chain] });
    const { stdout: served } = await play(['identity', 'list'], ofChain);
    assert.match(served, new RegExp(`orders +chain +${clientB}`));
    const far = (await play(['identity', 'list', '-A'], testBed)).stdout;
    assert.match(far, /^x +far +user-assigned +- +- +-$/m);
    const three = testBedOf({
      pods: ['a', 'b', 'c'].map((name) =>
        createPod(name, { labels: { aadpodidbinding: 'orders' } }),
      ),
    });
    assert.match((await play(['identity', 'list'], three)).stdout, / a,b,c\n$/);
  });

  it('refuses a namespace that does not exist, and shows one that is empty', async () => {
    const testBed = testBedOf({ namespaces: [{ metadata: { name: 'empty' } }] });
    const unknown = await play(['identity', 'list', '-n', 'shpo'], testBed);
    assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
    assert.match(unknown.stderr, /^error: namespace shpo does not exist\n/);
    const empty = await play(['identity', 'list', '-n', 'empty'], testBed);
    assert.deepEqual([empty.code, empty.stderr], [0, '']);
  });

  it('a binding for a service account lists only the pods of that account', async () => {
    const bindings = [
      createBinding('orders', {
        azureIdentity: 'orders',
        selector: 'orders',
        serviceAccount: 'robot',
      }),
    ];
    const { stdout } = await play(
      ['identity', 'list', '-o', 'json'],
      testBedOf({ [kinds.bindings]: bindings }),
    );
    assert.deepEqual(
      (JSON.parse(stdout) as { identities: { pods: string[] }[] }).identities[0]?.pods,
      [],
    );
  });

  it('list is quick with thousands of them, by three calls of kubectl', async () => {
    const numbers = Array.from({ length: 5_000 }, (_, at) => `i-${at}`);
    const testBed = testBedOf({
      pods: numbers.map((name) => createPod(name, { labels: { aadpodidbinding: name } })),
      [kinds.identities]: numbers.map((name) => createIdentity(name)),
      [kinds.bindings]: numbers.map((name) =>
        createBinding(name, { azureIdentity: name, selector: name }),
      ),
    });
    using time = new OwnTime();
    const { stdout, reads } = await play(['identity', 'list', '-A'], testBed);
    const tookMs = time.nowMs();
    assert.match(stdout, /^shop +i-4999 .* i-4999 +i-4999$/m);
    assert.equal(reads, 3);
    assert.ok(tookMs < 5_000, `${tookMs} ms; a look at each pod for each binding takes 25 s`);
  });
});
