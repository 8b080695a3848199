/**
 * The port to what proves an identity to Entra ID. A proof is secret: it goes into the request to
 * Entra ID and nowhere else, and nobody keeps it longer than it needs.
 */
import type { EntraCredential, EntraIdentity, SourceFailure } from '../../source.ts';

export type Proof =
  | { readonly kind: 'secret'; readonly clientSecret: string }
  | {
      readonly kind: 'certificate';
      /** SHA-256 of the certificate's DER form, in hex. */
      readonly thumbprintSha256: string;
      /** PKCS#8 PEM of the RSA key. */
      readonly privateKeyPem: string;
      /** PEM of the certificate and, after it, of its issuers. */
      readonly chainPem: string;
    }
  /** A signed JWT of a service account. */
  | { readonly kind: 'assertion'; readonly assertion: string };

export type ProofResult =
  | { readonly ok: true; readonly proof: Proof }
  | { readonly ok: false; readonly failure: SourceFailure };

/** An identity with one kind of credential. */
export type IdentityWith<K extends EntraCredential['kind']> = Omit<EntraIdentity, 'credential'> & {
  readonly credential: EntraCredential & { readonly kind: K };
};

export interface ProofProvider<K extends EntraCredential['kind']> {
  /** Never rejects, except with the signal's reason when that aborts. */
  get(identity: IdentityWith<K>, signal: AbortSignal): Promise<ProofResult>;
  /**
   * Entra ID refused what `get` gave. Forgets it, so that the next `get` reads anew.
   * @returns whether a kept proof was forgotten: only then can the next one differ.
   */
  forget(identity: IdentityWith<K>): boolean;
}
