/**
 * PEM text with certificates and a private key, in any order and with any other text between them.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { KeyFileError } from './key-file-error.ts';
import { readEncryptedKey } from './pfx.ts';
import { openPkcs1, openPkcs8 } from './private-key.ts';

export interface PemContent {
  readonly keys: readonly KeyObject[];
  /** DER. */
  readonly certificates: readonly Buffer[];
}

interface Block {
  readonly label: string;
  readonly body: string;
}

const certificateLabels: ReadonlySet<string> = new Set(['CERTIFICATE', 'X509 CERTIFICATE']);

export function isPem(text: string): boolean {
  return text.includes('-----BEGIN ');
}

/**
 * @param passwords for an encrypted key, tried in this order.
 * Throws `KeyFileError`.
 */
export function readPem(text: string, passwords: readonly string[]): PemContent {
  const blocks = [...blocksOf(text)];
  const certificates = blocks.filter(({ label }) => certificateLabels.has(label)).map(decodeBody);
  const [key, ...more] = blocks.filter(({ label }) => label.endsWith('PRIVATE KEY'));
  if (key === undefined) return { keys: [], certificates };
  // Rejected before any is opened: each may require as much work as a whole file.
  if (more.length > 0) throw new KeyFileError('UNSUITABLE', 'has several private keys');
  return { keys: [readKey(key, passwords)], certificates };
}

function readKey(block: Block, passwords: readonly string[]): KeyObject {
  switch (block.label) {
    case 'PRIVATE KEY':
      return openPkcs8(decodeBody(block));
    case 'RSA PRIVATE KEY':
      if (isOldEncryption(block)) return openOldEncryption(block, passwords);
      return openPkcs1(decodeBody(block));
    case 'ENCRYPTED PRIVATE KEY':
      return openPkcs8(readEncryptedKey(decodeBody(block), passwords));
    default:
      throw new KeyFileError(
        'UNSUITABLE',
        'has a private key of another kind than RSA, which Entra ID needs, in PKCS#1 or PKCS#8',
      );
  }
}

/** OpenSSL's own format from before PKCS#8: one round of MD5, so Node may open it. */
function isOldEncryption({ body }: Block): boolean {
  return body.includes('DEK-Info:');
}

function openOldEncryption({ label, body }: Block, passwords: readonly string[]): KeyObject {
  // The library searches for its own first line: it would open a block that is hidden in this one,
  // of another kind and with as many rounds as that block demands.
  if (!/^\r?\n/.test(body) || body.includes('-----')) {
    throw new KeyFileError('MALFORMED', 'has a damaged private key');
  }
  const key = `-----BEGIN ${label}-----${body}-----END ${label}-----\n`;
  for (const passphrase of passwords) {
    try {
      return createPrivateKey({ key, format: 'pem', passphrase });
    } catch {
      // A wrong password and a broken key cause the same error.
    }
  }
  throw new KeyFileError('WRONG_PASSWORD', 'is protected by another password');
}

/**
 * Searches for the next mark and does not use a pattern, which would cost a scan for each mark
 * without an end.
 */
function* blocksOf(text: string): Generator<Block> {
  for (let at = text.indexOf('-----BEGIN '); at >= 0; at = text.indexOf('-----BEGIN ', at)) {
    const labelAt = at + '-----BEGIN '.length;
    const labelEnd = text.indexOf('-----', labelAt);
    const label = labelEnd < 0 ? '' : text.slice(labelAt, labelEnd);
    const end = `-----END ${label}-----`;
    const bodyEnd = labelEnd < 0 ? -1 : text.indexOf(end, labelEnd);
    if (bodyEnd < 0) throw new KeyFileError('MALFORMED', 'has a block of PEM without its end');
    yield { label, body: text.slice(labelEnd + '-----'.length, bodyEnd) };
    at = bodyEnd + end.length;
  }
}

function decodeBody({ body }: Block): Buffer {
  return Buffer.from(body, 'base64');
}
