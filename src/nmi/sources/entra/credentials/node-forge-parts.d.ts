/** The files of node-forge that are used, and what its own types leave out. */
declare module 'node-forge' {
  namespace pki {
    /** The derivation that `pkcs12.generateKey` is too. */
    const pbe: { generatePkcs12Key: typeof pkcs12.generateKey };
  }
  namespace pkcs12 {
    /** @param password null for none. */
    function pkcs12FromAsn1(file: asn1.Asn1, strict: boolean, password: string | null): Pkcs12Pfx;
  }
}
declare module 'node-forge/lib/forge.js' {
  import * as forge from 'node-forge';
  export = forge;
}
declare module 'node-forge/lib/md.all.js' {
  import { md } from 'node-forge';
  export = md;
}
declare module 'node-forge/lib/pkcs12.js' {
  import { pkcs12 } from 'node-forge';
  export = pkcs12;
}
