/**
 * Certificates as PKCS#12 files, in the two forms found in the field: the one of OpenSSL 3 and
 * current Windows, and the older one of all earlier tools.
 */
import { createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import type * as nodeForge from 'node-forge';
import type { ClientCertificate } from './authority.ts';

/**
 * `modern`: AES-256 by PBKDF2 with SHA-256, a MAC of SHA-256. `legacy`: 40-bit RC2 for the
 * certificates, triple DES for the key, a MAC of SHA-1.
 */
export type PfxCiphers = 'modern' | 'legacy';

export interface PfxOptions {
  /** Default: empty, as in exports of Azure Key Vault. */
  readonly password?: string;
  /** Default `modern`. */
  readonly ciphers?: PfxCiphers;
}

type Forge = typeof nodeForge;
type Asn1 = nodeForge.asn1.Asn1;
/** Bytes as in forge: a string with one character per byte. */
type ByteText = string;

const iterations = 2048;
const saltBytes = 8;
const counts = { count: iterations, saltSize: saltBytes } as const;

const oids = {
  data: '1.2.840.113549.1.7.1',
  encryptedData: '1.2.840.113549.1.7.6',
  x509: '1.2.840.113549.1.9.22.1',
  localKeyId: '1.2.840.113549.1.9.21',
  shaAndRc2: '1.2.840.113549.1.12.1.6',
  shroudedKeyBag: '1.2.840.113549.1.12.10.1.2',
  certificateBag: '1.2.840.113549.1.12.10.1.3',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
} as const;

/** The key, its certificate and, if present, the issuer's certificate, all encrypted. */
export async function renderPfx(
  certificate: ClientCertificate,
  { password = '', ciphers = 'modern' }: PfxOptions = {},
): Promise<Buffer> {
  const { default: forge } = await import('node-forge');
  const write = createWriter(forge);
  const seal = createSeal(forge, write, password, ciphers);

  // Readers pair the key with its certificate by this attribute.
  const thumbprint = fromBytes(Buffer.from(certificate.thumbprintSha1, 'hex'));
  const pairing = write.set(
    write.sequence(write.oid(oids.localKeyId), write.set(write.octets(thumbprint))),
  );
  const certificateBags = [certificate.certificatePem, certificate.issuerPem]
    .filter((pem) => pem !== '')
    .map((pem, index) =>
      write.sequence(
        write.oid(oids.certificateBag),
        write.inside(
          write.sequence(
            write.oid(oids.x509),
            write.inside(write.octets(fromBytes(new X509Certificate(pem).raw))),
          ),
        ),
        ...(index === 0 ? [pairing] : []),
      ),
    );
  const keyDer = createPrivateKey(certificate.keyPem).export({ type: 'pkcs8', format: 'der' });
  const sealedKey = seal.key(forge.asn1.fromDer(fromBytes(keyDer)));
  const keyBag = write.sequence(
    write.oid(oids.shroudedKeyBag),
    write.inside(write.sequence(sealedKey.algorithm, write.octets(sealedKey.text))),
    pairing,
  );
  const sealed = seal.certificates(write.sequence(...certificateBags));
  const encryptedData = write.sequence(
    write.integer(0),
    write.sequence(write.oid(oids.data), sealed.algorithm, write.replaced(sealed.text)),
  );
  const contents = write.der(
    write.sequence(
      write.sequence(write.oid(oids.encryptedData), write.inside(encryptedData)),
      write.wrap(write.der(write.sequence(keyBag))),
    ),
  );
  const file = write.sequence(write.integer(3), write.wrap(contents), seal.mac(contents));
  return Buffer.from(write.der(file), 'latin1');
}

interface Sealed {
  readonly algorithm: Asn1;
  readonly text: ByteText;
}

interface Seal {
  readonly key: (content: Asn1) => Sealed;
  readonly certificates: (content: Asn1) => Sealed;
  /** MAC over the DER form of the file's whole contents. */
  readonly mac: (contents: ByteText) => Asn1;
}

function createSeal(forge: Forge, write: Writer, password: string, ciphers: PfxCiphers): Seal {
  const derive = (
    salt: ByteText,
    purpose: 'key' | 'iv' | 'mac',
    bytes: number,
    hash: 'sha1' | 'sha256',
  ): ReturnType<Forge['pkcs12']['generateKey']> => {
    const id = { key: 1, iv: 2, mac: 3 }[purpose];
    const digest = hash === 'sha1' ? forge.md.sha1.create() : forge.md.sha256.create();
    const buffer = forge.util.createBuffer(salt);
    return forge.pkcs12.generateKey(password, buffer, id, iterations, bytes, digest);
  };

  const byForge = (content: Asn1): Sealed => {
    // PBKDF2 takes the password as UTF-8, the older derivation as UTF-16; forge only does UTF-16.
    const { value } =
      ciphers === 'legacy'
        ? forge.pki.encryptPrivateKeyInfo(content, password, { ...counts, algorithm: '3des' })
        : forge.pki.encryptPrivateKeyInfo(content, fromBytes(Buffer.from(password)), {
            ...counts,
            algorithm: 'aes256',
            prfAlgorithm: 'sha256',
          });
    const [algorithm, text] = value;
    if (typeof algorithm !== 'object' || typeof text !== 'object') {
      throw new TypeError('forge encrypted into something else than algorithm and text');
    }
    return { algorithm, text: typeof text.value === 'string' ? text.value : '' };
  };

  const byRc2 = (content: Asn1): Sealed => {
    const salt = fromBytes(randomBytes(saltBytes));
    const cipher = forge.rc2.createEncryptionCipher(derive(salt, 'key', 5, 'sha1'), 40);
    cipher.start(derive(salt, 'iv', 8, 'sha1'));
    cipher.update(forge.util.createBuffer(write.der(content)));
    cipher.finish();
    const settings = write.sequence(write.octets(salt), write.integer(iterations));
    return {
      algorithm: write.sequence(write.oid(oids.shaAndRc2), settings),
      text: cipher.output.getBytes(),
    };
  };

  return {
    key: byForge,
    certificates: ciphers === 'legacy' ? byRc2 : byForge,
    mac: (contents) => {
      const salt = fromBytes(randomBytes(saltBytes));
      const hash = ciphers === 'legacy' ? 'sha1' : 'sha256';
      const hmac = forge.hmac.create();
      hmac.start(hash, derive(salt, 'mac', hash === 'sha1' ? 20 : 32, hash));
      hmac.update(contents);
      const digest = hmac.digest().getBytes();
      return write.sequence(
        write.sequence(
          write.sequence(write.oid(oids[hash]), write.nothing()),
          write.octets(digest),
        ),
        write.octets(salt),
        write.integer(iterations),
      );
    },
  };
}

interface Writer {
  readonly sequence: (...parts: Asn1[]) => Asn1;
  readonly set: (...parts: Asn1[]) => Asn1;
  readonly oid: (dotted: string) => Asn1;
  readonly octets: (bytes: ByteText) => Asn1;
  readonly integer: (value: number) => Asn1;
  readonly nothing: () => Asn1;
  /** The tag [0] around a value. */
  readonly inside: (value: Asn1) => Asn1;
  /** The tag [0] instead of the tag of an OCTET STRING. */
  readonly replaced: (bytes: ByteText) => Asn1;
  /** Bytes as plain content of type `data`. */
  readonly wrap: (bytes: ByteText) => Asn1;
  readonly der: (value: Asn1) => ByteText;
}

function createWriter({
  asn1: { create, oidToDer, integerToDer, toDer, Class, Type },
}: Forge): Writer {
  const plain = (type: nodeForge.asn1.Type, bytes: ByteText): Asn1 =>
    create(Class.UNIVERSAL, type, false, bytes);
  const sequence = (...parts: Asn1[]): Asn1 => create(Class.UNIVERSAL, Type.SEQUENCE, true, parts);
  const oid = (dotted: string): Asn1 => plain(Type.OID, oidToDer(dotted).getBytes());
  const octets = (bytes: ByteText): Asn1 => plain(Type.OCTETSTRING, bytes);
  const inside = (value: Asn1): Asn1 => create(Class.CONTEXT_SPECIFIC, Type.NONE, true, [value]);
  return {
    sequence,
    set: (...parts) => create(Class.UNIVERSAL, Type.SET, true, parts),
    oid,
    octets,
    integer: (value) => plain(Type.INTEGER, integerToDer(value).getBytes()),
    nothing: () => plain(Type.NULL, ''),
    inside,
    replaced: (bytes) => create(Class.CONTEXT_SPECIFIC, Type.NONE, false, bytes),
    wrap: (bytes) => sequence(oid(oids.data), inside(octets(bytes))),
    der: (value) => toDer(value).getBytes(),
  };
}

function fromBytes(bytes: Uint8Array): ByteText {
  return Buffer.from(bytes).toString('latin1');
}
