/** How an identity names a credential of a kind, and how it is loaded. It is secret. */
import type { Clock } from '../../../../base/time/clock.ts';
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import type { EntraSettings } from '../../../../cache/index/objects.ts';
import type { KubeClient } from '../../../kube/api/client.ts';
import type { JsonPoster, PodName } from '../../../kube/accounts/token-request.ts';
import type { Revocable, SourceFailure } from '../../source.ts';

/** In the format of MSAL, which builds the request from it. */
export type ClientCredential =
  | { readonly clientSecret: string }
  | { readonly clientCertificate: ClientCertificate }
  | { readonly clientAssertion: string };

export interface ClientCertificate {
  /** SHA-256 of the certificate's DER form, in hex. */
  readonly thumbprintSha256: string;
  /** PKCS#8 PEM of the RSA key. */
  readonly privateKey: string;
  /** PEM of the certificate and, after it, of its issuers. */
  readonly x5c: string;
}

/** The expiry is not sent to Entra ID. */
export interface OpenedCertificate extends ClientCertificate {
  readonly expiresAtWallMs: number;
}

export type ClientCredentialResult =
  | { readonly ok: true; readonly clientCredential: ClientCredential }
  | { readonly ok: false; readonly failure: SourceFailure };

export interface Loaded {
  readonly result: ClientCredentialResult;
  /** By the monotonic clock. */
  readonly keepMs: number;
  /** By the wall clock, which steps; the other one stops while a machine is suspended. */
  readonly usableUntilWallMs?: number;
}

export interface CredentialLoader<C> {
  /** Changes when what was loaded before must not be used any more. */
  keyOf(credential: C): string;
  /** Must not reject. Until it waits for something, `keyOf` is the same. */
  load(credential: C): Promise<Loaded>;
}

/** Keeps no credential and no timer after its disposal. */
export interface CredentialProvider<C> extends Disposable {
  /** Rejects only with the signal's reason. */
  get(credential: C, signal: AbortSignal): Promise<ClientCredentialResult>;
  /**
   * Called when Entra ID refused a client credential from `get`. Drops it, so that the next `get`
   * reads again. @returns whether the next one can differ, for each of several fetches that ran
   * with a rotated secret.
   */
  forget(credential: C, refused: ClientCredential): boolean;
  /** To be called when the need, or a pod, may have changed. */
  dropUnneeded(): void;
}

export interface CredentialContext<C> {
  readonly client: KubeClient;
  readonly tokenClient: JsonPoster;
  readonly clock: Clock;
  /** The same one as long as it lives, since another pod costs another token. */
  livePodOf(serviceAccount: ObjectName): PodName | undefined;
  /** Called each time the certificate of a credential was read. */
  readonly onCertificate: (credential: C, expiresAtWallMs: number) => void;
  isNeeded(credential: C): boolean;
}

export interface CredentialSettings {
  readonly namespace: string;
  readonly entra: EntraSettings;
  readonly serviceAccount: ObjectName;
  readonly authority: string;
  /** Of service account tokens. */
  readonly audience: string;
  /** Of tokens that are credentials in a chain: Entra ID takes those of its cloud only. */
  readonly legAudience: string;
  readonly revocation: Revocable;
}

export interface CredentialKind<C extends { readonly kind: string }> {
  readonly kind: C['kind'];
  /** `spec.type` of its identities. `parse` distinguishes kinds with the same type. */
  readonly type: number;
  readonly typeTitle: string;
  readonly hasAuxiliaryTenants?: true;
  readonly isOfPod?: true;
  /** By the API server of AKS, not by Entra ID itself. */
  readonly isExchangedByCluster?: true;
  /** The credential is the agent's own service account, in whatever namespace the identity is. */
  readonly isOfAgent?: true;
  /** The kind of object that its credentials are made from, if that object has a name. */
  readonly objectKind?: 'Secret' | 'service account' | 'chain';
  /** A string is the problem, as it completes "AzureIdentity x ..."; undefined: of another kind. */
  parse(settings: CredentialSettings): C | string | undefined;
  /** Different for credentials of this kind that come from different sources. Not secret. */
  key(credential: C): string;
  objectOf(credential: C): ObjectName | undefined;
  /** Absent if the credential is a token of another identity, which comes with the request. */
  open?(context: CredentialContext<C>): CredentialLoader<C>;
}

/** What it takes to load a credential from a Secret. */
export type SecretContext<C> = Pick<CredentialContext<C>, 'client' | 'clock' | 'onCertificate'>;

export interface SecretKind<C extends { readonly kind: string }> extends CredentialKind<C> {
  open(context: SecretContext<C>): CredentialLoader<C>;
}
