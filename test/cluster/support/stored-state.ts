/**
 * All that etcd has stored for the API server, to be restored for the next suite. The server's memory
 * follows etcd, as it does when another server writes; a restart takes seconds of a processor.
 */
import assert from 'node:assert/strict';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import type { Api } from './api.ts';
import { applyObjects } from './apply-objects.ts';

export interface StoredState {
  /** Of etcd; keys and values are in base64. */
  readonly entries: ReadonlyMap<string, string>;
  readonly served: Served;
}

/** What the server knows of it, in parts that tests change. */
interface Served {
  readonly namespaces: readonly string[];
  readonly groups: readonly string[];
}

/** etcd refuses more writes in one transaction than 128. */
const writesAtOnce = 100;
/** Both take a second on a machine without other work. */
const maxMs = 30_000;
/** The server's own lease, which it renews. */
const ownLeases = '/registry/leases/kube-system/apiserver-';

/**
 * The server compiles its policies once a second, all at once: one that is enforced shows that those
 * before it are not.
 */
const probe = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: refuse-probe }
spec:
  matchConstraints:
    resourceRules: [{ apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps] }]
  validations: [{ expression: "object.metadata.name != 'probe'" }]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: refuse-probe }
spec: { policyName: refuse-probe, validationActions: [Deny] }
`;

/** Once the server has made the objects that it makes by itself. */
export async function readStoredState(etcd: Api, admin: Api): Promise<StoredState> {
  await eventually(async () => {
    await admin.expect('GET', '/api/v1/namespaces/default/services/kubernetes');
    const { namespaces } = await readServed(admin);
    assert.deepEqual(namespaces, ['default', 'kube-node-lease', 'kube-public', 'kube-system']);
  }, maxMs);
  return { entries: await readEntries(etcd), served: await readServed(admin) };
}

/** Returns when the server serves that state, and enforces no other policy. */
export async function restoreStoredState(
  etcd: Api,
  admin: Api,
  { entries, served }: StoredState,
): Promise<void> {
  const added = await writeEntries(etcd, entries);
  if (added.some((key) => key.includes('/validatingadmissionpolicies/'))) {
    await applyObjects(admin, probe);
    await eventually(async () => {
      const path = '/api/v1/namespaces/default/configmaps?dryRun=All';
      const { body } = await admin.request('POST', path, { metadata: { name: 'probe' } });
      assert.match(body.message ?? '', /ValidatingAdmissionPolicy 'refuse-probe'/);
    }, maxMs);
    await writeEntries(etcd, entries);
  }
  await eventually(async () => {
    assert.deepEqual(await readServed(admin), served);
  }, maxMs);
}

/** Returns the keys that there were besides. */
async function writeEntries(
  etcd: Api,
  entries: StoredState['entries'],
): Promise<readonly string[]> {
  const now = await readEntries(etcd);
  const added = [...now.keys()].filter((key) => !entries.has(key));
  const changed = [...entries].filter(([key, value]) => now.get(key) !== value);
  const writes = [
    ...added.map((key) => ({ requestDeleteRange: { key } })),
    ...changed.map(([key, value]) => ({ requestPut: { key, value } })),
  ];
  for (let first = 0; first < writes.length; first += writesAtOnce) {
    const success = writes.slice(first, first + writesAtOnce);
    await etcd.expect('POST', '/v3/kv/txn', { success });
  }
  return added.map((key) => Buffer.from(key, 'base64').toString());
}

async function readEntries(etcd: Api): Promise<ReadonlyMap<string, string>> {
  const [key, end] = ['/registry/', '/registry0'].map((text) =>
    Buffer.from(text).toString('base64'),
  );
  const { kvs } = await etcd.expect('POST', '/v3/kv/range', { key, range_end: end });
  return new Map(
    (kvs as readonly { readonly key: string; readonly value: string }[])
      .filter((each) => !Buffer.from(each.key, 'base64').toString().startsWith(ownLeases))
      .map((each) => [each.key, each.value]),
  );
}

async function readServed(admin: Api): Promise<Served> {
  // From the server's memory.
  const namespaces = await admin.expect('GET', '/api/v1/namespaces?resourceVersion=0');
  const { groups } = await admin.expect('GET', '/apis');
  return {
    namespaces: (namespaces.items ?? []).map(({ metadata }) => metadata.name).toSorted(),
    groups: (groups as readonly { readonly name: string }[]).map(({ name }) => name).toSorted(),
  };
}
