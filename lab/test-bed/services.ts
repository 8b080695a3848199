/**
 * The services outside the agent's node: the metadata service, Entra ID and the Kubernetes API, and
 * the agent's flags for them.
 */
import { writeAgentFiles } from './agent-files.ts';
import type { EntraApplication } from '../fakes/entra/applications.ts';
import { openFakeEntra, type FakeEntra } from '../fakes/entra/fake-entra.ts';
import { openFakeImds, type FakeImds } from '../fakes/imds/fake-imds.ts';
import { fakeIssuer } from '../fakes/kube/tokens.ts';
import { openFakeKube, type FakeKube } from '../fakes/kube/fake-kube.ts';
import {
  bindingCredential,
  bindingServerName,
  clusterHostName,
  type IdentityBindings,
} from '../fakes/kube/identity-bindings.ts';
import {
  createLabAuthority,
  type LabAuthority,
  type ServerCertificate,
} from '../fakes/authority.ts';
import { createNodeIdentity } from '../fakes/identity.ts';

export interface Services {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly entra: FakeEntra;
  readonly identityBindings: IdentityBindings;
  /** Signed the certificate of `entra`; signs those of applications. */
  readonly authority: LabAuthority;
  /** Flags with their addresses, except the metadata service's. */
  readonly agentFlags: readonly string[];
  readonly agentEnvironment: Readonly<Record<string, string>>;
}

export interface ServicesOptions {
  /** Address of the metadata service. */
  readonly imds: { readonly host: string; readonly port: number };
  /** Address of the other two. */
  readonly host: string;
  /** 0 selects a free port. */
  readonly kubePort: number;
  readonly entraPort: number;
  readonly nodeIp: string;
  /** Of the Kubernetes API; default: its own. */
  readonly bookmarkEveryMs?: number;
}

export async function openServices(options: ServicesOptions): Promise<Services & AsyncDisposable> {
  const { host, kubePort, entraPort, nodeIp, bookmarkEveryMs } = options;
  await using opening = new AsyncDisposableStack();
  const certifying = certify(host);
  const imds = opening.use(
    await openFakeImds({
      ...options.imds,
      nodeIps: [nodeIp],
      systemAssigned: createNodeIdentity(),
    }),
  );
  const certified = await certifying;
  const { authority, tls } = certified;
  const kube = opening.use(
    await openFakeKube({
      host,
      port: kubePort,
      tls,
      ...(bookmarkEveryMs && { bookmarkEveryMs }),
    }),
  );
  const entra = opening.use(await openFakeEntra({ host, port: entraPort, tls }));
  const identityBindings = serveIdentityBindings(kube, entra, certified);
  trustCluster(entra, kube);
  const files = opening.use(await writeAgentFiles(kube.kubeconfig(), authority.certificatePem));
  const owned = opening.move();
  return {
    kube,
    imds,
    entra,
    identityBindings,
    authority,
    agentFlags: [`--entra-ca-file=${files.entraCaPath}`, `--entra-authority=${entra.authority}`],
    agentEnvironment: {
      KUBECONFIG: files.kubeconfigPath,
      NMI_EXPLAIN_SOCKET: files.explainSocketPath,
      NMI_SHARED_FOLDER: files.sharedFolder,
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** In the form of those of AKS. */
const labClusterId = '7e57000000000000000c1a57';

export interface Certified {
  readonly authority: LabAuthority;
  /** Of the Kubernetes API and Entra ID. */
  readonly tls: ServerCertificate & { readonly ca: string };
  /** Of the Kubernetes API, under its other name. */
  readonly forBindings: ServerCertificate;
}

export async function certify(host: string): Promise<Certified> {
  const authority = await createLabAuthority();
  const [tls, forBindings] = await Promise.all([
    authority.issueServer([host, clusterHostName(labClusterId)]),
    authority.issueServer([bindingServerName(labClusterId)]),
  ]);
  return { authority, tls: { ...tls, ca: authority.certificatePem }, forBindings };
}

export function serveIdentityBindings(
  kube: FakeKube,
  { authority: origin }: FakeEntra,
  { authority, forBindings }: Certified,
): IdentityBindings {
  const entra = { authority: origin, caPem: authority.certificatePem };
  return kube.serveIdentityBindings({ clusterId: labClusterId, tls: forBindings, entra });
}

/** What AKS does for an identity binding of this cluster. */
export function bindIdentity(
  { entra, identityBindings }: Pick<Services, 'entra' | 'identityBindings'>,
  { tenantId, clientId }: Pick<EntraApplication, 'tenantId' | 'clientId'>,
): Pick<EntraApplication, 'federatedCredentials'> {
  const credential = bindingCredential(tenantId, clientId);
  identityBindings.tenants.set(clientId, tenantId);
  entra.trustIssuer(credential.issuer, () => identityBindings.keys());
  return { federatedCredentials: [credential] };
}

/** Federated credentials name the cluster as their issuer. */
export function trustCluster(entra: FakeEntra, kube: FakeKube): void {
  entra.trustIssuer(fakeIssuer, async () => (await kube.signingKeys()).keys);
}
