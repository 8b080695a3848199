/**
 * What a password protects in PKCS#12 and PKCS#8: data by PBES2 (RFC 8018) or by the older schemes
 * of PKCS#12 itself, and the whole file by a MAC (RFC 7292).
 */
import { createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto';
import type { Ber, BerNode } from './ber.ts';
import { KeyFileError } from './key-file-error.ts';
import { hashShapes, purposes, type HashName, type Stretching } from './key-stretching.ts';

/** One way to write one password. */
export interface PasswordForm {
  readonly utf8: Buffer;
  /** UTF-16 with its end mark. Empty, without even that, for a password that is absent. */
  readonly bmp: Buffer;
}

export interface Unlocking {
  readonly ber: Ber;
  readonly stretching: Stretching;
}

/** A decrypted part; how it was encrypted is named by an AlgorithmIdentifier. */
interface Scheme {
  decrypt(data: Buffer): Buffer | undefined;
}

interface BlockCipher {
  readonly name: string;
  readonly keyBytes: number;
}

const pbes2 = '1.2.840.113549.1.5.13';
const pbkdf2 = '1.2.840.113549.1.5.12';

const pbes2Ciphers: ReadonlyMap<string, BlockCipher> = new Map([
  ['2.16.840.1.101.3.4.1.2', { name: 'aes-128-cbc', keyBytes: 16 }],
  ['2.16.840.1.101.3.4.1.22', { name: 'aes-192-cbc', keyBytes: 24 }],
  ['2.16.840.1.101.3.4.1.42', { name: 'aes-256-cbc', keyBytes: 32 }],
  ['1.2.840.113549.3.7', { name: 'des-ede3-cbc', keyBytes: 24 }],
]);

const pkcs12Ciphers: ReadonlyMap<string, BlockCipher> = new Map([
  ['1.2.840.113549.1.12.1.3', { name: 'des-ede3-cbc', keyBytes: 24 }],
  ['1.2.840.113549.1.12.1.4', { name: 'des-ede-cbc', keyBytes: 16 }],
  ['1.2.840.113549.1.12.1.5', { name: 'rc2', keyBytes: 16 }],
  ['1.2.840.113549.1.12.1.6', { name: 'rc2', keyBytes: 5 }],
]);

const pseudoRandomFunctions: ReadonlyMap<string, HashName> = new Map([
  ['1.2.840.113549.2.7', 'sha1'],
  ['1.2.840.113549.2.8', 'sha224'],
  ['1.2.840.113549.2.9', 'sha256'],
  ['1.2.840.113549.2.10', 'sha384'],
  ['1.2.840.113549.2.11', 'sha512'],
]);

const macHashes: ReadonlyMap<string, HashName> = new Map([
  ['1.3.14.3.2.26', 'sha1'],
  ['2.16.840.1.101.3.4.2.4', 'sha224'],
  ['2.16.840.1.101.3.4.2.1', 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 'sha512'],
]);

/**
 * How files write a password. No password is written in two ways: some stretch an empty text, some
 * nothing at all.
 */
export function formsOf(password: string): readonly PasswordForm[] {
  const utf8 = Buffer.from(password, 'utf8');
  const written = { utf8, bmp: Buffer.from(`${password}\0`, 'utf16le').swap16() };
  return password === '' ? [written, { utf8, bmp: Buffer.alloc(0) }] : [written];
}

/**
 * @param algorithm an AlgorithmIdentifier.
 * Rejects with `KeyFileError`; WRONG_PASSWORD may also mean that the data is damaged.
 */
export async function decrypt(
  unlocking: Unlocking,
  algorithm: BerNode | undefined,
  data: Buffer,
  password: PasswordForm,
): Promise<Buffer> {
  const { ber } = unlocking;
  const [name, parameters] = ber.childrenOf(algorithm);
  const oid = ber.oidOf(name);
  const scheme =
    oid === pbes2
      ? await openPbes2(unlocking, parameters, password)
      : await openPkcs12Scheme(unlocking, oid, parameters, password);
  const plain = scheme.decrypt(data);
  if (plain === undefined)
    throw new KeyFileError('WRONG_PASSWORD', 'is protected by another password');
  return plain;
}

async function openPbes2(
  { ber, stretching }: Unlocking,
  parameters: BerNode | undefined,
  password: PasswordForm,
): Promise<Scheme> {
  const [derivation, encryption] = ber.childrenOf(parameters);
  const [derivationName, derivationParameters] = ber.childrenOf(derivation);
  const derivationOid = ber.oidOf(derivationName);
  if (derivationOid !== pbkdf2) throw unsupported('key derivation', derivationOid);
  const [salt, rounds, ...rest] = ber.childrenOf(derivationParameters);
  // The length of the key may come first; the cipher says it as well.
  const prf = rest.find((node) => typeof node.value !== 'string');
  const prfOid = prf === undefined ? undefined : ber.oidOf(ber.childrenOf(prf)[0]);
  const hashName = prfOid === undefined ? 'sha1' : pseudoRandomFunctions.get(prfOid);
  if (hashName === undefined) throw unsupported('key derivation', prfOid);
  const [encryptionName, iv] = ber.childrenOf(encryption);
  const encryptionOid = ber.oidOf(encryptionName);
  const cipher = pbes2Ciphers.get(encryptionOid);
  if (cipher === undefined) throw unsupported('encryption', encryptionOid);
  const key = await stretching.pbkdf2({
    hashName,
    password: password.utf8,
    salt: ber.bytesOf(salt),
    rounds: ber.integerOf(rounds),
    length: cipher.keyBytes,
  });
  return blockScheme(cipher, key, ber.bytesOf(iv));
}

async function openPkcs12Scheme(
  { ber, stretching }: Unlocking,
  oid: string,
  parameters: BerNode | undefined,
  password: PasswordForm,
): Promise<Scheme> {
  const cipher = pkcs12Ciphers.get(oid);
  if (cipher === undefined) throw unsupported('encryption', oid);
  const [salt, rounds] = ber.childrenOf(parameters);
  const input = {
    hashName: 'sha1',
    password: password.bmp,
    salt: ber.bytesOf(salt),
    rounds: ber.integerOf(rounds),
  } as const;
  const { keyBytes } = cipher;
  const key = await stretching.pkcs12({ ...input, purpose: purposes.key, length: keyBytes });
  const iv = await stretching.pkcs12({ ...input, purpose: purposes.iv, length: 8 });
  return cipher.name === 'rc2'
    ? { decrypt: (data) => ber.decryptRc2(data, key, iv, 8 * keyBytes) }
    : blockScheme(cipher, key, iv);
}

function blockScheme(cipher: BlockCipher, key: Buffer, iv: Buffer): Scheme {
  return {
    decrypt(data) {
      try {
        const decipher = createDecipheriv(cipher.name, key, iv);
        return Buffer.concat([decipher.update(data), decipher.final()]);
      } catch {
        return undefined;
      }
    },
  };
}

/**
 * Whether the MAC of a file was made with this password.
 * @param mac MacData.
 * @param content what it was made of.
 */
export async function verifyMac(
  { ber, stretching }: Unlocking,
  mac: BerNode,
  content: Buffer,
  password: PasswordForm,
): Promise<boolean> {
  const [digestInfo, salt, rounds] = ber.childrenOf(mac);
  const [algorithm, digest] = ber.childrenOf(digestInfo);
  const oid = ber.oidOf(ber.childrenOf(algorithm)[0]);
  const hashName = macHashes.get(oid);
  if (hashName === undefined) throw unsupported('MAC', oid);
  const key = await stretching.pkcs12({
    hashName,
    password: password.bmp,
    salt: ber.bytesOf(salt),
    rounds: rounds === undefined ? 1 : ber.integerOf(rounds),
    purpose: purposes.mac,
    length: hashShapes[hashName].outputBytes,
  });
  const expected = createHmac(hashName, key).update(content).digest();
  const told = ber.bytesOf(digest);
  return told.length === expected.length && timingSafeEqual(told, expected);
}

function unsupported(what: keyof typeof supported, oid = ''): KeyFileError {
  // An identifier can be as long as its file.
  const named = oid.length > 64 ? '' : ` ${oid}`;
  return new KeyFileError(
    'UNSUPPORTED',
    `uses the ${what}${named}, which is not supported; export it again with ${supported[what]}`,
  );
}

const supported = {
  encryption: 'AES-256',
  'key derivation': 'PBKDF2',
  MAC: 'a MAC by SHA-256',
} as const;
