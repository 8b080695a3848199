/**
 * The agent on loopback with a fake Entra ID, where applications are registered with each kind of
 * credential that the agent supports.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createEntraApplication,
  type EntraApplication,
} from '../../lab/fakes/entra/applications.ts';
import { openFakeEntra, type FakeEntra } from '../../lab/fakes/entra/fake-entra.ts';
import { fakeIssuer } from '../../lab/fakes/kube/tokens.ts';
import type { FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import type { LabAuthority } from '../../lab/fakes/authority.ts';
import type { IdentityBindings } from '../../lab/fakes/kube/identity-bindings.ts';
import { renderPfx } from '../../lab/fakes/pfx.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createIdentityUse,
  createPodManifest,
  createSecret,
  createServiceAccount,
  type AzureIdentityOptions,
} from '../../lab/fakes/kube/manifests.ts';
import {
  bindIdentity,
  certify,
  serveIdentityBindings,
  trustCluster,
  type Certified,
} from '../../lab/test-bed/services.ts';
import type { EntraCredential } from '../../src/nmi/sources/entra/credentials/kinds.ts';
import { exchangeAudience, exchangeIssuer } from '../../lab/fakes/exchange-tokens.ts';
import { labTenantId } from '../../lab/fakes/identity.ts';
import type { LabIdentity } from '../../lab/fakes/token.ts';
import {
  identityA,
  openLoopbackAgent,
  type AgentOwn,
  type LoopbackAgent,
} from './loopback-agent.ts';

export type CredentialKind = EntraCredential['kind'];

export const credentialKinds = [
  'secret',
  'certificate',
  'federated_pod',
  'federated_binding',
  'federated_node',
  'chained',
] as const satisfies readonly CredentialKind[];

/** The service account of pods that `bindPod` makes. */
export const podAccount = { namespace: 'default', name: 'robot' };
/** The account that the fake API server reports for the agent. */
export const agentAccount = { namespace: 'kube-system', name: 'nmi' };

export interface EntraTestBed {
  readonly kube: FakeKube;
  readonly entra: FakeEntra;
  readonly identityBindings: IdentityBindings;
  /** It signed the certificate of `entra`. */
  readonly authority: LabAuthority;
}

export type EntraAgent = LoopbackAgent & EntraTestBed;

let shared: Promise<Certified> | undefined;

/**
 * @param prepare runs before the agent starts, so that its objects are in the first lists.
 * @param own the agent's clock and limits.
 */
export async function openEntraAgent(
  flags: Readonly<Record<string, string>> = {},
  prepare: (testBed: EntraTestBed) => void | Promise<void> = () => undefined,
  own: AgentOwn = {},
): Promise<EntraAgent> {
  await using opening = new AsyncDisposableStack();
  const certified = await (shared ??= certify('127.0.0.1'));
  const { authority, tls } = certified;
  const entra = opening.use(await openFakeEntra({ tls }));
  const folder = await mkdtemp(join(tmpdir(), 'nmi-entra-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const caFile = join(folder, 'ca.pem');
  await writeFile(caFile, authority.certificatePem);
  let identityBindings: IdentityBindings | undefined;
  const agent = opening.use(
    await openLoopbackAgent(
      { 'entra-ca-file': caFile, 'entra-authority': entra.authority, ...flags },
      async (kube) => {
        populate({ kube, entra });
        identityBindings = serveIdentityBindings(kube, entra, certified);
        await prepare({ kube, entra, identityBindings, authority });
      },
      own,
      { tls },
    ),
  );
  assert.ok(identityBindings !== undefined);
  const owned = opening.move();
  const beside = { entra, identityBindings, authority };
  return { ...agent, ...beside, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The service accounts of pods and agent, and a cluster with trusted assertions. */
export function populate({ kube, entra }: Pick<EntraTestBed, 'kube' | 'entra'>): void {
  for (const account of [podAccount, agentAccount]) kube.apply(createServiceAccount(account));
  kube.user = { username: subjectOf(agentAccount), groups: [] };
  trustCluster(entra, kube);
}

/** A running pod labelled `app`. */
export function bindPod(kube: FakeKube, name = 'p', ip = '127.0.0.11', createdAtWallMs?: number) {
  const age = createdAtWallMs === undefined ? {} : { createdAtWallMs };
  const pod = { name, nodeName: 'node-1', ips: [ip], binding: 'app', ...age };
  return kube.apply(createPodManifest({ ...pod, serviceAccount: podAccount.name }));
}

export interface BoundApplication {
  /** Default: as the kind of credential requires. */
  readonly application?: Partial<EntraApplication>;
  readonly identity?: Partial<AzureIdentityOptions>;
  /** Creation of identity and binding. Default: now. */
  readonly createdAtWallMs?: number;
}

/**
 * An application with a working credential, and an AzureIdentity of its name that is bound to pods
 * labelled `app`. Secrets have the same name too.
 */
export async function bindApplication(
  testBed: EntraTestBed,
  kind: CredentialKind,
  name: string,
  options: BoundApplication = {},
): Promise<EntraApplication> {
  const { kube, entra } = testBed;
  const made = await makeCredential(testBed, kind, name);
  const application = createEntraApplication(name, { ...made, ...options.application });
  const { clientId, tenantId } = application;
  const age =
    options.createdAtWallMs === undefined ? {} : { createdAtWallMs: options.createdAtWallMs };
  entra.register(application);
  kube.apply(
    createAzureIdentity({
      name,
      clientId,
      tenantId,
      ...identityOfKind(kind, name),
      ...options.identity,
      ...age,
    }),
  );
  kube.apply(createAzureIdentityBinding({ name, azureIdentity: name, selector: 'app', ...age }));
  return application;
}

function identityOfKind(kind: CredentialKind, name: string): Partial<AzureIdentityOptions> {
  switch (kind) {
    case 'secret':
      return { type: 1, clientPassword: { name } };
    case 'certificate':
      return { type: 2, clientPassword: { name } };
    case 'federated_pod':
      return { type: 3 };
    case 'federated_binding':
      return { type: 3, federation: 'binding' };
    case 'federated_node':
      return { type: 3, federation: 'node' };
    case 'chained': {
      const { clientId, tenantId } = createEntraApplication(name);
      const application = { tenantID: tenantId, clientID: clientId };
      return { type: 4, clientId: identityA.clientId, application };
    }
  }
}

async function makeCredential(
  testBed: EntraTestBed,
  kind: CredentialKind,
  name: string,
): Promise<Partial<EntraApplication>> {
  switch (kind) {
    case 'secret':
      return { secrets: [{ value: putSecret(testBed.kube, name, `secret-of-${name}`) }] };
    case 'certificate':
      return { certificates: [await putCertificate(testBed, name)] };
    case 'federated_pod':
      return federatedTo(podAccount);
    case 'federated_binding': {
      const identity = createEntraApplication(name);
      for (const object of createIdentityUse(identity.clientId, podAccount))
        testBed.kube.apply(object);
      return bindIdentity(testBed, identity);
    }
    case 'federated_node':
      return federatedTo(agentAccount);
    case 'chained':
      return trusting(identityA);
  }
}

/** Credentials of an application that trusts a managed identity of its tenant. */
export function trusting({
  objectId,
}: LabIdentity): Pick<EntraApplication, 'federatedCredentials'> {
  const issuer = exchangeIssuer(labTenantId);
  return { federatedCredentials: [{ issuer, subject: objectId, audience: exchangeAudience }] };
}

/** Stores it in the Secret `name`. @returns the value. */
export function putSecret(kube: FakeKube, name: string, value: string): string {
  kube.apply(createSecret({ name, data: { clientSecret: value } }));
  return value;
}

/** Stores a new key and certificate in the Secret `name`. @returns the certificate as PEM. */
export async function putCertificate(
  { kube, authority }: Pick<EntraTestBed, 'kube' | 'authority'>,
  name: string,
): Promise<string> {
  const certificate = await authority.issueClient(name);
  const password = `password-of-${name}`;
  const data = { certificate: await renderPfx(certificate, { password }), password };
  kube.apply(createSecret({ name, data }));
  return certificate.certificatePem;
}

export function federatedTo(
  account: { readonly namespace: string; readonly name: string },
  audience = 'api://AzureADTokenExchange',
): Pick<EntraApplication, 'federatedCredentials'> {
  const subject = subjectOf(account);
  return { federatedCredentials: [{ issuer: fakeIssuer, subject, audience }] };
}

function subjectOf({ namespace, name }: { namespace: string; name: string }): string {
  return `system:serviceaccount:${namespace}:${name}`;
}
