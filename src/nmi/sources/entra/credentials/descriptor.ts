/**
 * What there is to a kind of credential: how an `AzureIdentity` names one, what it is called, and
 * how it is made into a client credential. Each kind has one descriptor; `kinds.ts` lists them.
 *
 * A client credential is secret: it goes into the request to Entra ID and nowhere else, and nobody keeps it
 * longer than it needs.
 */
import type { Clock } from '../../../../cache/clock.ts';
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import type { EntraSettings } from '../../../../cache/index/objects.ts';
import type { KubeClient } from '../../../kube/api/client.ts';
import type { PodName } from '../../../kube/accounts/token-request.ts';
import type { SourceFailure } from '../../source.ts';

/** In the words of MSAL, which makes the request of it. */
export type ClientCredential =
  | { readonly clientSecret: string }
  | { readonly clientCertificate: ClientCertificate }
  /** A signed JWT of a service account. */
  | { readonly clientAssertion: string };

export interface ClientCertificate {
  /** SHA-256 of the certificate's DER form, in hex. */
  readonly thumbprintSha256: string;
  /** PKCS#8 PEM of the RSA key. */
  readonly privateKey: string;
  /** PEM of the certificate and, after it, of its issuers. */
  readonly x5c: string;
}

/** With its end, which is not for Entra ID; milliseconds since the epoch. */
export interface OpenedCertificate extends ClientCertificate {
  readonly expiresAtWallMs: number;
}

export type ClientCredentialResult =
  | { readonly ok: true; readonly clientCredential: ClientCredential }
  | { readonly ok: false; readonly failure: SourceFailure };

/** Nothing is kept, and nothing armed, after its disposal. */
export interface CredentialProvider<C> extends Disposable {
  /** Never rejects, except with the signal's reason when that aborts. */
  get(credential: C, signal: AbortSignal): Promise<ClientCredentialResult>;
  /**
   * Entra ID refused a client credential that `get` gave. Forgets it, so that the next `get` reads anew.
   * @returns whether the next one can differ, to each whose client credential was refused: of several fetches
   *   under way with a rotated secret all are worth another try.
   */
  forget(credential: C, refused: ClientCredential): boolean;
  /** Forgets what is no longer needed; to be called when that, or a pod, may have changed. */
  dropUnneeded(): void;
}

/** What client credentials are made with. */
export interface CredentialContext<C> {
  readonly client: KubeClient;
  readonly clock: Clock;
  /**
   * A pod of this node that runs under the service account and has not ended: best the same one for
   * as long as it lives, as another pod costs another token.
   */
  livePodOf(serviceAccount: ObjectName): PodName | undefined;
  /** When the certificate of a credential expires, each time it was read; milliseconds since the epoch. */
  readonly onCertificate: (credential: C, expiresAtWallMs: number) => void;
  /** Whether some identity is proven by it now. */
  isNeeded(credential: C): boolean;
}

/** What an identity says of its credential. */
export interface CredentialSettings {
  /** Of the identity. */
  readonly namespace: string;
  readonly entra: EntraSettings;
  /** Of the pod that is to have the token. */
  readonly serviceAccount: ObjectName;
  /** Of assertions that the authority takes. */
  readonly audience: string;
}

export interface CredentialKind<C extends { readonly kind: string }> {
  /** A short constant word for metrics and logs. */
  readonly kind: C['kind'];
  /** `spec.type` of its identities. Kinds that share one are told apart by `parse`. */
  readonly type: number;
  /** What `type` means, for a text. */
  readonly typeTitle: string;
  /** `spec.auxiliaryTenantIDs` counts. */
  readonly hasAuxiliaryTenants?: true;
  /** Pods under different service accounts have different credentials of one identity. */
  readonly isOfPod?: true;
  /** The agent's own service account proves it, whichever namespace the identity is in. */
  readonly isOfAgent?: true;
  /** What its credentials are made of, where that is an object with a name. */
  readonly objectKind?: 'Secret' | 'service account';
  /**
   * A text is what is wrong, as it completes "AzureIdentity x ..."; undefined: this is another kind
   * of the same type.
   */
  parse(settings: CredentialSettings): C | string | undefined;
  /** Differs for what is proven by something else, among credentials of the kind. Not secret. */
  key(credential: C): string;
  objectOf(credential: C): ObjectName | undefined;
  open(context: CredentialContext<C>): CredentialProvider<C>;
}
