/**
 * The services outside the agent's node: the metadata service, Entra ID and the Kubernetes API, and
 * the agent's flags for them.
 */
import { writeAgentFiles } from './agent-files.ts';
import { openFakeEntra, type FakeEntra } from '../fakes/entra/fake-entra.ts';
import { openFakeImds, type FakeImds } from '../fakes/imds/fake-imds.ts';
import { fakeIssuer } from '../fakes/kube/tokens.ts';
import { openFakeKube, type FakeKube } from '../fakes/kube/fake-kube.ts';
import { createLabAuthority, type LabAuthority } from '../fakes/authority.ts';
import { createNodeIdentity } from '../fakes/identity.ts';

export interface Services {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly entra: FakeEntra;
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
  const kube = opening.use(
    await openFakeKube({ host, port: kubePort, ...(bookmarkEveryMs && { bookmarkEveryMs }) }),
  );
  const imds = opening.use(
    await openFakeImds({
      ...options.imds,
      nodeIps: [nodeIp],
      systemAssigned: createNodeIdentity(),
    }),
  );
  const { authority, tls } = await certifying;
  const entra = opening.use(await openFakeEntra({ host, port: entraPort, tls }));
  trustCluster(entra, kube);
  const files = opening.use(await writeAgentFiles(kube.kubeconfig(), authority.certificatePem));
  const owned = opening.move();
  return {
    kube,
    imds,
    entra,
    authority,
    agentFlags: [`--entra-ca-file=${files.entraCaPath}`, `--entra-authority=${entra.authority}`],
    agentEnvironment: {
      KUBECONFIG: files.kubeconfigPath,
      NMI_EXPLAIN_SOCKET: files.explainSocketPath,
      NMI_CALLER_SOCKET: files.callerSocketPath,
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function certify(host: string) {
  const authority = await createLabAuthority();
  return { authority, tls: await authority.issueServer([host]) };
}

/** Federated credentials name the cluster as their issuer. */
export function trustCluster(entra: FakeEntra, kube: FakeKube): void {
  entra.trustIssuer(fakeIssuer, async () => (await kube.signingKeys()).keys);
}
