/**
 * BER and RC2, by node-forge: Node has no reader of ASN.1, and its OpenSSL no RC2, which old PKCS#12
 * files hide their certificates with. Loaded with the first file that needs it, and by file: 6 ms and
 * 5 MB, where the whole package takes 30 ms and 13 MB (Node 26).
 */
import type forge from 'node-forge';
import { KeyFileError } from './key-file-error.ts';

export type BerNode = forge.asn1.Asn1;

/** Every method that reads throws `KeyFileError` MALFORMED on what is not there. */
export interface Ber {
  parse(bytes: Buffer): BerNode;
  /** DER. */
  encode(node: BerNode): Buffer;
  /** What is in a sequence, a set, or an explicit tag. */
  childrenOf(node: BerNode | undefined): readonly BerNode[];
  /** The contents of a string, whose pieces BER may have cut. */
  bytesOf(node: BerNode | undefined): Buffer;
  /** In dots. */
  oidOf(node: BerNode | undefined): string;
  /** An integer from 0 to 2^31 - 1. */
  integerOf(node: BerNode | undefined): number;
  /** CBC. `undefined` when the padding is not what it should be. */
  decryptRc2(data: Buffer, key: Buffer, iv: Buffer, keyBits: number): Buffer | undefined;
}

export async function loadBer(): Promise<Ber> {
  const [{ default: asn1 }, { default: rc2 }, { default: util }] = await Promise.all([
    import('node-forge/lib/asn1.js'),
    import('node-forge/lib/rc2.js'),
    import('node-forge/lib/util.js'),
  ]);

  function bytesOf(node: BerNode | undefined): Buffer {
    if (node === undefined) throw malformed();
    const { value } = node;
    return typeof value === 'string' ? fromBinary(value) : Buffer.concat(value.map(bytesOf));
  }

  return {
    parse: (bytes) => guard(() => asn1.fromDer(toBinary(bytes))),
    encode: (node) => guard(() => fromBinary(asn1.toDer(node).getBytes())),
    childrenOf(node) {
      if (node === undefined || typeof node.value === 'string') throw malformed();
      return node.value;
    },
    bytesOf,
    oidOf: (node) => guard(() => asn1.derToOid(toBinary(bytesOf(node)))),
    integerOf(node) {
      const value = guard(() => asn1.derToInteger(toBinary(bytesOf(node))));
      if (!(value >= 0)) throw malformed();
      return value;
    },
    decryptRc2(data, key, iv, keyBits) {
      return guard(() => {
        const cipher = rc2.createDecryptionCipher(toBinary(key), keyBits);
        cipher.start(toBinary(iv));
        cipher.update(util.createBuffer(toBinary(data)));
        return cipher.finish() ? fromBinary(cipher.output.getBytes()) : undefined;
      });
    },
  };
}

// The library keeps bytes in strings, one to a character.

function toBinary(bytes: Buffer): string {
  return bytes.toString('latin1');
}

function fromBinary(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

/** The library throws plain errors, some of which quote what they read. */
function guard<T>(read: () => T): T {
  try {
    return read();
  } catch {
    throw malformed();
  }
}

function malformed(): KeyFileError {
  return new KeyFileError('MALFORMED', 'is damaged');
}
