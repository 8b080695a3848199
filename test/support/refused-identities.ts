/**
 * The mistakes by which a working identity comes to be refused by its source, as a table: each is
 * made, and repaired, beside a running agent whose pod 127.0.0.11 is bound to the AzureIdentity `name`
 * of namespace `default`.
 */
import {
  createEntraApplication,
  type EntraApplication,
} from '../../lab/fakes/entra/applications.ts';
import type { EntraFaults } from '../../lab/fakes/entra/fake-entra.ts';
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
  row: Omit<RefusedIdentity, 'prepare' | keyof Deeds>,
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

/** The mistake is in the application at Entra ID. */
const changed =
  (change: (of: EntraApplication) => Partial<EntraApplication>) =>
  (of: EntraApplication): Deeds => ({
    refuse: ({ entra }) => entra.register({ ...of, ...change(of) }),
    repair: ({ entra }) => entra.register(of),
  });

/** Entra ID, or what is on the way to it, fails for everybody. */
const failing = (faults: EntraFaults): Deeds => ({
  refuse: ({ entra }) => entra.setFaults(faults),
  repair: ({ entra }) => entra.setFaults({}),
});

const otherTenantId = '7e570000-1ab0-4000-8000-0000000000aa';
const notFederated = changed(() => ({ federatedCredentials: [] }));
const unassigned: Deeds = {
  refuse: ({ imds }) => imds.unassign(identityA.clientId),
  repair: ({ imds }) => imds.assign(identityA),
};

const row = (name: string, reason: FailureReason, says: RegExp, mistake: string) => ({
  mistake,
  name,
  reason,
  says,
});

export const refusedIdentities: readonly RefusedIdentity[] = [
  application(
    'secret',
    row('secret-expired', 'credential_refused', /AADSTS7000222/, 'an expired secret'),
    changed(({ secrets }) => ({
      secrets: secrets.map((each) => ({ ...each, expiresAtWallMs: 0 })),
    })),
  ),
  application(
    'secret',
    row(
      'secret-without-key',
      'credential_invalid',
      /nothing under the key/,
      'a Secret without a usable key',
    ),
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
    row(
      'binding-elsewhere',
      'credential_invalid',
      /no identity bindings/,
      'an identity binding in a cluster without it',
    ),
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
    row(
      'subject-of-another',
      'federation_refused',
      /AADSTS700213/,
      'a federated credential with another subject',
    ),
    changed(() => federatedTo({ ...podAccount, name: 'another' })),
  ),
  application(
    'federated_pod',
    row('not-federated', 'federation_refused', /AADSTS70021:/, 'no federated credential at all'),
    notFederated,
  ),
  {
    ...row(
      'not-assigned',
      'identity_not_assigned',
      /Identity not found/,
      'an identity that is not assigned to the node',
    ),
    prepare: async ({ kube }) => {
      const name = 'not-assigned';
      kube.apply(createAzureIdentity({ name, ...idsOf(identityA) }));
      kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: 'app' }));
    },
    ...unassigned,
  },
  application(
    'secret',
    row('wrong-tenant', 'identity_refused', /AADSTS700016/, 'the wrong tenant'),
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
    row(
      'chain-not-trusted',
      'federation_refused',
      /AADSTS70021:.*leg of the chain: application/,
      'a chain whose application has no credential',
    ),
    notFederated,
  ),
  application(
    'chained',
    row(
      'chain-not-assigned',
      'identity_not_assigned',
      /Identity not found.*earlier leg of the chain: managed identity [0-9a-f-]{36}/,
      'a chain whose managed identity is not assigned',
    ),
    () => unassigned,
  ),
  application(
    'secret',
    row(
      'entra-resets',
      'upstream_down',
      /Entra ID \(127\.0\.0\.1:\d+\) did not answer: the connection was cut.*open 127\.0\.0\.1:\d+ from the nodes/,
      'connections to Entra ID that are reset',
    ),
    () => failing({ reset: true }),
  ),
  application(
    'secret',
    row(
      'entra-502',
      'upstream_down',
      /answered status 502 without JSON.*open 127\.0\.0\.1:\d+ from the nodes/,
      'a proxy that answers 502 with a page',
    ),
    () => failing({ fail: { status: 502 } }),
  ),
  application(
    'secret',
    row('disabled', 'identity_refused', /AADSTS7000112/, 'a disabled application'),
    ({ clientId }) => ({
      refuse: ({ entra }) => entra.setFaults({ refuse: { code: 7_000_112 } }, clientId),
      repair: ({ entra }) => entra.setFaults({}, clientId),
    }),
  ),
  application(
    'secret',
    row('conditional-access', 'policy_refused', /AADSTS53003/, 'Conditional Access'),
    ({ clientId }) => ({
      refuse: ({ entra }) => entra.setFaults({ refuse: { code: 53_003 } }, clientId),
      repair: ({ entra }) => entra.setFaults({}, clientId),
    }),
  ),
];
