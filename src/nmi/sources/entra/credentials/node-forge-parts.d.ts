/**
 * Types of the parts of node-forge that are used, by file, and of the replaced parts; its own types
 * cover only the whole.
 */
declare module 'node-forge/lib/forge.js' {
  import type library from 'node-forge';
  namespace forge {
    type Asn1 = library.asn1.Asn1;
    type Bytes = library.util.ByteStringBuffer;
    type Password = string | null;

    interface Digest {
      readonly algorithm: string;
      readonly digestLength: number;
    }
    type DeriveKey = (
      password: Password,
      salt: Bytes,
      purpose: number,
      rounds: number,
      length: number,
      digest?: Digest,
    ) => Bytes;
    interface Digests {
      readonly sha1: { create(): Digest };
    }
    interface SafeBag {
      readonly type: string;
      readonly asn1?: Asn1;
    }
    interface Pkcs12 {
      generateKey: DeriveKey;
      pkcs12FromAsn1(
        file: Asn1,
        strict: boolean,
        password: Password,
      ): { readonly safeContents: readonly { readonly safeBags: readonly SafeBag[] }[] };
    }
    interface Forge {
      readonly asn1: typeof library.asn1;
      readonly pkcs5: {
        pbkdf2(
          password: Password,
          salt: string,
          rounds: number,
          length: number,
          digest: Digest,
        ): string;
      };
      readonly pki: {
        readonly oids: Record<string, string>;
        readonly pbe: { generatePkcs12Key: DeriveKey };
        readonly privateKeyFromAsn1: unknown;
        readonly certificateFromAsn1: unknown;
      };
    }
  }
  const forge: forge.Forge;
  export = forge;
}
declare module 'node-forge/lib/md.all.js' {
  import type { Digests } from 'node-forge/lib/forge.js';
  const digests: Digests;
  export = digests;
}
declare module 'node-forge/lib/pkcs12.js' {
  import type { Pkcs12 } from 'node-forge/lib/forge.js';
  const pkcs12: Pkcs12;
  export = pkcs12;
}
