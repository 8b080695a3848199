import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Config } from '../../../src/nmi/config/config.ts';
import { defaultConfig } from '../../../src/kubectl/cluster/agents.ts';
import { createClusterState } from '../../../src/kubectl/cluster/cluster-state.ts';
import type { Snapshot } from '../../../src/kubectl/cluster/snapshot.ts';
import { examineObjects } from '../../../src/kubectl/findings/objects.ts';
import { statusOf } from '../support/assess.ts';
import {
  clientA,
  createBinding,
  createIdentity,
  createObject,
  createPod,
  createSnapshot,
  nowWallMs,
} from '../support/recorded-kubectl.ts';

function examine(changes: Partial<Snapshot> = {}, config = defaultConfig, knowsOptions = true) {
  const snapshot = createSnapshot(changes);
  const view = createClusterState(snapshot, config, nowWallMs);
  return examineObjects({ snapshot, view, config, knowsOptions });
}

const linesOf = (changes: Partial<Snapshot>) =>
  examine(changes).map(({ code, object }) => `${code} ${object}`);

describe('objects', () => {
  it('that match each other have no finding', () => {
    assert.deepEqual(linesOf({}), []);
  });

  it('are ignored by the agent for a field of the wrong type', () => {
    assert.deepEqual(linesOf({ identities: [createIdentity('orders', { clientID: 7 })] }), [
      'object_unusable AzureIdentity shop/orders',
      'identity_missing AzureIdentityBinding shop/orders',
    ]);
  });

  it('are ignored by the agent as bindings with a field of the wrong type', () => {
    assert.deepEqual(
      linesOf({ bindings: [createBinding('orders'), createBinding('b', { azureIdentity: 7 })] }),
      ['object_unusable AzureIdentityBinding shop/b'],
    );
  });

  it('are reported as identities that cannot be used, or that nothing names', () => {
    const identities = [createIdentity('orders', { clientID: 'mine' }), createIdentity('idle')];
    assert.deepEqual(linesOf({ identities }), [
      'identity_invalid AzureIdentity shop/orders',
      'identity_unbound AzureIdentity shop/idle',
    ]);
  });

  it('are reported as identities that their status says are not ready', () => {
    const status = statusOf('False', 'credential_missing');
    assert.deepEqual(linesOf({ identities: [{ ...createIdentity('orders'), status }] }), [
      'credential_missing AzureIdentity shop/orders',
    ]);
    const unowned = {
      ...createIdentity('orders'),
      status: statusOf('False', 'identity_not_owned'),
    };
    assert.deepEqual(linesOf({ identities: [unowned] }), [], 'the grants show it themselves');
    assert.deepEqual(linesOf({ identities: [unowned], grants: undefined }), [
      'identity_not_owned AzureIdentity shop/orders',
    ]);
  });

  it('are reported as identities that a binding of another namespace names', () => {
    const platform = { namespace: 'platform' };
    const identities = [createIdentity('shared', { clientID: clientA }, platform)];
    const bindings = [
      createBinding('lost', { azureIdentity: 'none', selector: 'orders' }),
      createBinding('orders', { azureIdentity: 'shared', selector: 'orders' }),
    ];
    const found = examine({ identities, bindings, scope: undefined });
    const unbound = found.find(({ code }) => code === 'identity_unbound');
    assert.equal(unbound?.object, 'AzureIdentity platform/shared');
    assert.match(
      unbound.text,
      /Binding shop\/orders does, and uses only identities of namespace shop/,
    );
    // The name may be a typo of that namespace, which may be that of another team.
    assert.equal(
      unbound.fix,
      'Bind it in its own namespace, or have the owners of namespace shop create theirs.',
    );
  });

  it('are reported as bindings without an identity, with the one that may be meant', () => {
    const bindings = [
      createBinding('a', { azureIdentity: 'Orders', selector: 'orders' }),
      createBinding('b', { azureIdentity: 'orders', selector: '' }),
      createBinding('c', { azureIdentity: 'orders', selector: 'nobody' }),
      createBinding('d', { azureIdentity: 'far', selector: 'orders' }),
    ];
    const identities = [createIdentity('orders'), createIdentity('far', {}, { namespace: 'x' })];
    assert.deepEqual(linesOf({ bindings, identities }), [
      'identity_missing AzureIdentityBinding shop/a',
      'selector_unusable AzureIdentityBinding shop/b',
      'binding_unused AzureIdentityBinding shop/c',
      'identity_missing AzureIdentityBinding shop/d',
    ]);
    const [first, , , last] = examine({ bindings, identities });
    assert.match(first?.fix ?? '', /Did you mean AzureIdentity "orders"\?/);
    assert.deepEqual(first?.details, ['The one there is called "orders".']);
    assert.match(last?.details[0] ?? '', /one in namespace x/);
  });

  it('are reported as exceptions that match nothing', () => {
    const exception = (name: string, podLabels: object) =>
      createObject('AzurePodIdentityException', name, { podLabels });
    assert.deepEqual(
      linesOf({
        exceptions: [
          exception('a', {}),
          exception('b', { app: 'db' }),
          exception('c', { app: 'WEB' }),
        ],
      }),
      [
        'exception_without_labels AzurePodIdentityException shop/a',
        'exception_unused AzurePodIdentityException shop/b',
      ],
    );
  });

  it('are in doubt as exceptions where grants decide that are not known', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'a', { podLabels: { app: 'db' } }),
    ];
    const pods = [createPod('db', { labels: { app: 'db' } })];
    const enforcing = { ...defaultConfig, identityOwners: 'enforce' } as const;
    const of = (grants: Snapshot['grants'], ...options: [config?: Config, known?: boolean]) =>
      examine({ exceptions, pods, grants, bindings: [], identities: [] }, ...options).map(
        ({ code, severity, text }) => `${severity} ${code} ${text}`,
      );
    const lacks = 'if no AzureIdentityGrant gives namespace shop the identities of the node.';
    assert.deepEqual(of(undefined, enforcing), [
      `info identity_not_owned Its pods get 400 identity_not_owned ${lacks}`,
    ]);
    assert.deepEqual(of(undefined, defaultConfig, false), [
      `info identity_not_owned Its pods get 400 identity_not_owned where the agent has --identity-owners=enforce, ${lacks}`,
    ]);
    assert.deepEqual(of(undefined), []);
    assert.deepEqual(of([], enforcing), []);
  });

  it('are reported as exceptions for at least three pods, and most of the namespace', () => {
    const exceptions = [
      createObject('AzurePodIdentityException', 'a', { podLabels: { app: 'db' } }),
    ];
    const podsOf = (matching: number, others: number) => [
      ...Array.from({ length: matching }, (_, at) =>
        createPod(`db-${at}`, { labels: { app: 'db' } }),
      ),
      ...Array.from({ length: others }, (_, at) => createPod(`web-${at}`)),
      createPod('far', { namespace: 'x' }),
      createPod('done', { status: { phase: 'Succeeded' } }),
    ];
    const broadWith = (matching: number, others: number) =>
      examine({ exceptions, pods: podsOf(matching, others) })
        .filter(({ code }) => code === 'exception_broad')
        .map(({ text }) => text);
    assert.deepEqual(broadWith(2, 0), []);
    assert.deepEqual(broadWith(3, 3), []);
    assert.match(broadWith(3, 2).join('\n'), /^It matches 3 of the 5 pods of namespace shop:/);
    assert.doesNotMatch(broadWith(3, 2).join('\n'), /gets/, 'that needs a grant with enforce');
  });

  it('of other namespaces are checked when all are requested', () => {
    const far = { namespace: 'x' };
    const objects = {
      identities: [createIdentity('orders'), createIdentity('idle', {}, far)],
      bindings: [
        createBinding('orders'),
        createBinding('lost', { azureIdentity: 'none', selector: '' }, far),
      ],
      exceptions: [createObject('AzurePodIdentityException', 'open', { podLabels: {} }, far)],
    };
    assert.deepEqual(linesOf(objects), []);
    assert.deepEqual(linesOf({ ...objects, scope: undefined }), [
      'identity_invalid AzureIdentity x/idle',
      'identity_unbound AzureIdentity x/idle',
      'selector_unusable AzureIdentityBinding x/lost',
      'identity_missing AzureIdentityBinding x/lost',
      'exception_without_labels AzurePodIdentityException x/open',
    ]);
  });
});
