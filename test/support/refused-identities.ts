/**
 * The mistakes by which a working identity comes to be refused by its source, as a table: each is
 * made, and repaired, beside a running agent whose pod 127.0.0.11 is bound to the AzureIdentity `name`
 * of namespace `default`.
 */
import { createEntraApplication } from '../../lab/fakes/entra/applications.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createSecret,
} from '../../lab/fakes/kube/manifests.ts';
import type { FailureReason } from '../../src/nmi/sources/source.ts';
import {
  bindApplication,
  federatedTo,
  podAccount,
  putSecret,
  type CredentialKind,
  type EntraAgent,
  type EntraTestBed,
} from './entra-agent.ts';
import { identityA, idsOf } from './loopback-agent.ts';

export interface RefusedIdentity {
  readonly mistake: string;
  /** Of the AzureIdentity. */
  readonly name: string;
  readonly reason: FailureReason;
  /** Part of what is reported. */
  readonly says: RegExp;
  /** A working identity, before the agent starts. */
  readonly prepare: (testBed: EntraTestBed) => Promise<void>;
  readonly refuse: (agent: EntraAgent) => void;
  readonly repair: (agent: EntraAgent) => void;
}

type Deeds = Pick<RefusedIdentity, 'refuse' | 'repair'>;

function application(
  kind: CredentialKind,
  row: Pick<RefusedIdentity, 'mistake' | 'name' | 'reason' | 'says'>,
  deeds: (of: Awaited<ReturnType<typeof bindApplication>>) => Deeds,
): RefusedIdentity {
  let made: Deeds | undefined;
  return {
    ...row,
    prepare: async (testBed) => {
      made = deeds(await bindApplication(testBed, kind, row.name));
    },
    refuse: (agent) => made?.refuse(agent),
    repair: (agent) => made?.repair(agent),
  };
}

const otherTenantId = '7e570000-1ab0-4000-8000-0000000000aa';
const unassigned: Deeds = {
  refuse: ({ imds }) => imds.unassign(identityA.clientId),
  repair: ({ imds }) => imds.assign(identityA),
};

export const refusedIdentities: readonly RefusedIdentity[] = [
  application(
    'secret',
    {
      mistake: 'an expired secret',
      name: 'secret-expired',
      reason: 'credential_refused',
      says: /AADSTS7000222/,
    },
    (of) => ({
      refuse: ({ entra }) =>
        entra.register({
          ...of,
          secrets: of.secrets.map((each) => ({ ...each, expiresAtWallMs: 0 })),
        }),
      repair: ({ entra }) => entra.register(of),
    }),
  ),
  application(
    'secret',
    {
      mistake: 'a Secret without a usable key',
      name: 'secret-without-key',
      reason: 'credential_invalid',
      says: /nothing under the key/,
    },
    ({ name }) => ({
      refuse: ({ kube }) => {
        kube.delete({ kind: 'Secret', namespace: 'default', name });
        kube.apply(createSecret({ name, data: { unusual: '' } }));
      },
      repair: ({ kube }) => {
        kube.delete({ kind: 'Secret', namespace: 'default', name });
        putSecret(kube, name, `secret-of-${name}`);
      },
    }),
  ),
  application(
    'federated_binding',
    {
      mistake: 'an identity binding in a cluster without it',
      name: 'binding-elsewhere',
      reason: 'credential_invalid',
      says: /no identity bindings/,
    },
    () => ({
      refuse: ({ identityBindings }) => {
        const body = JSON.stringify({ kind: 'Status', message: 'not found', code: 404 });
        identityBindings.fault = { status: 404, type: 'application/json', body };
      },
      repair: ({ identityBindings }) => {
        identityBindings.fault = undefined;
      },
    }),
  ),
  application(
    'federated_pod',
    {
      mistake: 'a federated credential with another subject',
      name: 'subject-of-another',
      reason: 'federation_refused',
      says: /AADSTS700213/,
    },
    (of) => ({
      refuse: ({ entra }) =>
        entra.register({ ...of, ...federatedTo({ ...podAccount, name: 'another' }) }),
      repair: ({ entra }) => entra.register(of),
    }),
  ),
  application(
    'federated_pod',
    {
      mistake: 'no federated credential at all',
      name: 'not-federated',
      reason: 'federation_refused',
      says: /AADSTS70021:/,
    },
    (of) => ({
      refuse: ({ entra }) => entra.register({ ...of, federatedCredentials: [] }),
      repair: ({ entra }) => entra.register(of),
    }),
  ),
  {
    mistake: 'an identity that is not assigned to the node',
    name: 'not-assigned',
    reason: 'identity_not_assigned',
    says: /Identity not found/,
    prepare: async ({ kube }) => {
      const name = 'not-assigned';
      kube.apply(createAzureIdentity({ name, ...idsOf(identityA) }));
      kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: 'app' }));
    },
    ...unassigned,
  },
  application(
    'secret',
    {
      mistake: 'the wrong tenant',
      name: 'wrong-tenant',
      reason: 'identity_refused',
      says: /AADSTS700016/,
    },
    (of) => ({
      refuse: ({ entra }) => {
        entra.unregister(of);
        entra.register(createEntraApplication(of.name, { ...of, tenantId: otherTenantId }));
      },
      // It becomes another identity.
      repair: ({ kube }) => {
        const spec = { tenantID: otherTenantId };
        kube.patch({ kind: 'AzureIdentity', namespace: 'default', name: of.name }, { spec });
      },
    }),
  ),
  application(
    'chained',
    {
      mistake: 'a chain whose application has no credential',
      name: 'chain-not-trusted',
      reason: 'federation_refused',
      says: /AADSTS70021:.*leg of the chain: application/,
    },
    (of) => ({
      refuse: ({ entra }) => entra.register({ ...of, federatedCredentials: [] }),
      repair: ({ entra }) => entra.register(of),
    }),
  ),
  application(
    'chained',
    {
      mistake: 'a chain whose managed identity is not assigned',
      name: 'chain-not-assigned',
      reason: 'identity_not_assigned',
      says: /Identity not found.*earlier leg of the chain: managed identity [0-9a-f-]{36}/,
    },
    () => unassigned,
  ),
];
