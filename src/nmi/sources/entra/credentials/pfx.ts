/**
 * PKCS#12 files (RFC 7292): old and new ciphers, with and without a MAC, with and without a password.
 * What is inside is given as it is; what it is good for is judged elsewhere.
 */
import { loadBer, type BerNode } from './ber.ts';
import { KeyFileError } from './key-file-error.ts';
import { createStretching } from './key-stretching.ts';
import {
  decrypt,
  formsOf,
  verifyMac,
  type PasswordForm,
  type Unlocking,
} from './password-encryption.ts';
import type { Turns } from './turns.ts';

export interface PfxContent {
  /** DER of PKCS#8. */
  readonly keys: readonly Buffer[];
  /** DER. In the order of the file, which need not be that of the chain. */
  readonly certificates: readonly Buffer[];
}

const dataOid = '1.2.840.113549.1.7.1';
const signedDataOid = '1.2.840.113549.1.7.2';
const encryptedDataOid = '1.2.840.113549.1.7.6';
const keyBagOid = '1.2.840.113549.1.12.10.1.1';
const shroudedKeyBagOid = '1.2.840.113549.1.12.10.1.2';
const certificateBagOid = '1.2.840.113549.1.12.10.1.3';
const nestedBagOid = '1.2.840.113549.1.12.10.1.6';
const x509Oid = '1.2.840.113549.1.9.22.1';

/**
 * @param passwords tried in their order.
 * Rejects with `KeyFileError`.
 */
export async function readPfx(
  bytes: Buffer,
  passwords: readonly string[],
  turns: Turns,
): Promise<PfxContent> {
  const ber = await loadBer();
  const unlocking: Unlocking = { ber, stretching: createStretching(turns) };
  const [version, authenticated, mac] = ber.childrenOf(ber.parse(bytes));
  if (ber.integerOf(version) !== 3) throw new KeyFileError('MALFORMED', 'is not PKCS#12');
  const [typeNode, contentNode] = ber.childrenOf(authenticated);
  const type = ber.oidOf(typeNode);
  if (type === signedDataOid) {
    throw new KeyFileError('UNSUPPORTED', 'is signed instead of protected by a password');
  }
  if (type !== dataOid) throw new KeyFileError('MALFORMED', 'is not PKCS#12');
  const content = ber.bytesOf(ber.childrenOf(contentNode)[0]);
  const forms = passwords.flatMap((password) => formsOf(password));
  if (mac === undefined) return readWithAny(unlocking, content, forms);
  for (const form of forms) {
    if (await verifyMac(unlocking, mac, content, form)) return readSafes(unlocking, content, form);
  }
  throw wrongPassword();
}

/** Without a MAC, only what comes of the decryption tells whether the password was right. */
async function readWithAny(
  unlocking: Unlocking,
  content: Buffer,
  forms: readonly PasswordForm[],
): Promise<PfxContent> {
  let isLocked = false;
  for (const form of forms) {
    try {
      return await readSafes(unlocking, content, form);
    } catch (error) {
      if (!isMaybePassword(error)) throw error;
      isLocked ||= error instanceof KeyFileError && error.code === 'WRONG_PASSWORD';
    }
  }
  // One wrong password in 256 leaves something that looks decrypted.
  throw isLocked
    ? wrongPassword()
    : new KeyFileError('MALFORMED', 'is damaged, or protected by another password');
}

async function readSafes(
  unlocking: Unlocking,
  content: Buffer,
  password: PasswordForm,
): Promise<PfxContent> {
  const { ber } = unlocking;
  const keys: Buffer[] = [];
  const certificates: Buffer[] = [];
  for (const info of ber.childrenOf(ber.parse(content))) {
    const plain = await openSafe(unlocking, info, password);
    const bags = plain.length === 0 ? [] : ber.childrenOf(ber.parse(plain));
    for (const bag of bags) await readBag(bag);
  }
  return { keys, certificates };

  async function readBag(bag: BerNode): Promise<void> {
    const [typeNode, valueNode] = ber.childrenOf(bag);
    const type = ber.oidOf(typeNode);
    const [value] = ber.childrenOf(valueNode);
    if (value === undefined) throw new KeyFileError('MALFORMED', 'is damaged');
    if (type === keyBagOid) keys.push(ber.encode(value));
    else if (type === shroudedKeyBagOid) keys.push(await openKey(unlocking, value, password));
    else if (type === certificateBagOid) {
      const [format, wrapped] = ber.childrenOf(value);
      if (ber.oidOf(format) !== x509Oid) return;
      certificates.push(ber.bytesOf(ber.childrenOf(wrapped)[0]));
    } else if (type === nestedBagOid) {
      for (const inner of ber.childrenOf(value)) await readBag(inner);
    }
    // Revocation lists and other secrets are of no use here.
  }
}

async function openSafe(
  unlocking: Unlocking,
  info: BerNode,
  password: PasswordForm,
): Promise<Buffer> {
  const { ber } = unlocking;
  const [typeNode, contentNode] = ber.childrenOf(info);
  const [content] = ber.childrenOf(contentNode);
  const type = ber.oidOf(typeNode);
  if (type === dataOid) return ber.bytesOf(content);
  if (type !== encryptedDataOid) {
    throw new KeyFileError('UNSUPPORTED', 'is encrypted for a key instead of by a password');
  }
  const [, encrypted] = ber.childrenOf(content);
  const [, algorithm, data] = ber.childrenOf(encrypted);
  return decrypt(unlocking, algorithm, ber.bytesOf(data), password);
}

/** @param node an EncryptedPrivateKeyInfo. */
function openKey(unlocking: Unlocking, node: BerNode, password: PasswordForm): Promise<Buffer> {
  const [algorithm, data] = unlocking.ber.childrenOf(node);
  return decrypt(unlocking, algorithm, unlocking.ber.bytesOf(data), password);
}

/**
 * The PKCS#8 in what PEM calls ENCRYPTED PRIVATE KEY. Node would open it too, but with as many
 * rounds on this thread as the file demands.
 * @param passwords tried in their order.
 * Rejects with `KeyFileError`.
 */
export async function readEncryptedKey(
  bytes: Buffer,
  passwords: readonly string[],
  turns: Turns,
): Promise<Buffer> {
  const ber = await loadBer();
  const unlocking: Unlocking = { ber, stretching: createStretching(turns) };
  const node = ber.parse(bytes);
  ber.childrenOf(node);
  for (const form of passwords.flatMap((password) => formsOf(password))) {
    try {
      const key = await openKey(unlocking, node, form);
      ber.childrenOf(ber.parse(key));
      return key;
    } catch (error) {
      if (!isMaybePassword(error)) throw error;
    }
  }
  throw wrongPassword();
}

/** Whether another password may do better. */
function isMaybePassword(error: unknown): boolean {
  return (
    error instanceof KeyFileError && (error.code === 'WRONG_PASSWORD' || error.code === 'MALFORMED')
  );
}

function wrongPassword(): KeyFileError {
  return new KeyFileError('WRONG_PASSWORD', 'is protected by another password');
}
