/** PEM text with certificates and a private key, in any order, with any other text between them. */
import type { KeyObject } from 'node:crypto';
import { KeyFileError } from './key-file-error.ts';
import { openPkcs1, openPkcs8 } from './private-key.ts';

export interface KeyFileContent {
  readonly key: KeyObject | undefined;
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

/** Throws `KeyFileError`. */
export function readPem(text: string): KeyFileContent {
  const blocks = [...blocksOf(text)];
  const certificates = blocks.filter(({ label }) => certificateLabels.has(label)).map(decodeBody);
  const [key, ...more] = blocks.filter(({ label }) => label.endsWith('PRIVATE KEY'));
  // Rejected before any is opened: each may require as much work as a whole file.
  if (more.length > 0) throw new KeyFileError('UNSUITABLE', 'has several private keys');
  return { key: key && readKey(key), certificates };
}

function readKey(block: Block): KeyObject {
  // The second is OpenSSL's own format from before PKCS#8.
  if (block.label === 'ENCRYPTED PRIVATE KEY' || block.body.includes('DEK-Info:')) {
    throw new KeyFileError(
      'UNSUPPORTED',
      'has an encrypted private key, which is read from PKCS#12 only; convert it: openssl pkcs12 -export -in OLD -out NEW',
    );
  }
  switch (block.label) {
    case 'PRIVATE KEY':
      return openPkcs8(decodeBody(block));
    case 'RSA PRIVATE KEY':
      return openPkcs1(decodeBody(block));
    default:
      throw new KeyFileError(
        'UNSUITABLE',
        'has a private key of another kind than RSA, which Entra ID needs, in PKCS#1 or PKCS#8',
      );
  }
}

/** By the next mark: a pattern would cost a scan for each mark without an end. */
function* blocksOf(text: string): Generator<Block> {
  for (let at = text.indexOf('-----BEGIN '); at >= 0; at = text.indexOf('-----BEGIN ', at)) {
    const labelAt = at + '-----BEGIN '.length;
    const labelEnd = text.indexOf('-----', labelAt);
    // If no dashes end the label, none begin the end of the block either.
    const label = text.slice(labelAt, labelEnd);
    const end = `-----END ${label}-----`;
    const bodyEnd = text.indexOf(end, labelAt);
    if (bodyEnd < 0) throw new KeyFileError('MALFORMED', 'has a block of PEM without its end');
    yield { label, body: text.slice(labelEnd + '-----'.length, bodyEnd) };
    at = bodyEnd + end.length;
  }
}

function decodeBody({ body }: Block): Buffer {
  return Buffer.from(body, 'base64');
}
