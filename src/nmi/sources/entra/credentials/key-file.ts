/** Opens PKCS#12 or PEM, or either in base64. Some files take seconds, so only the worker does. */
import { X509Certificate } from 'node:crypto';
import { KeyFileError } from './key-file-error.ts';
import type { OpenedCertificate } from './descriptor.ts';
import { proveKeyPair } from './key-pair.ts';
import { isPem, readPem, type KeyFileContent } from './pem.ts';
import { readPfx } from './pfx.ts';
import { openPkcs8 } from './private-key.ts';

/** Chains of real authorities take 10 KB. Parsed, a file grows to many small objects. */
const maxFileBytes = 64 * 1024;

export interface KeyFile {
  readonly bytes: Uint8Array;
  /** Tried in this order. */
  readonly passwords: readonly string[];
  readonly nowWallMs: number;
}

export function openKeyFile({ bytes, passwords, nowWallMs }: KeyFile): OpenedCertificate {
  const { key, certificates } = readContent(Buffer.from(bytes), passwords);
  return proveKeyPair(key, certificates, nowWallMs);
}

function readContent(bytes: Buffer, passwords: readonly string[]): KeyFileContent {
  if (bytes.length === 0) throw new KeyFileError('MALFORMED', 'is empty');
  if (bytes.length > maxFileBytes) {
    throw new KeyFileError('MALFORMED', `is longer than ${maxFileBytes} bytes`);
  }
  const text = bytes.toString('latin1');
  if (isPem(text)) return readPem(text);
  if (isDer(bytes)) return readDer(bytes, passwords);
  const inner = decodeBase64(text);
  if (inner === undefined) {
    throw new KeyFileError('MALFORMED', 'is neither PKCS#12 nor PEM');
  }
  const innerText = inner.toString('latin1');
  return isPem(innerText) ? readPem(innerText) : readDer(inner, passwords);
}

function readDer(bytes: Buffer, passwords: readonly string[]): KeyFileContent {
  if (isCertificate(bytes)) {
    throw new KeyFileError('UNSUITABLE', 'is a certificate without its private key');
  }
  const { keys, certificates } = readPfx(bytes, passwords);
  const [key, ...more] = keys;
  // Rejected before any is opened: there may be hundreds.
  if (more.length > 0) throw new KeyFileError('UNSUITABLE', 'has several private keys');
  return { key: key && openPkcs8(key), certificates };
}

function isCertificate(bytes: Buffer): boolean {
  try {
    return new X509Certificate(bytes).raw.length > 0;
  } catch {
    return false;
  }
}

function isDer(bytes: Buffer): boolean {
  return bytes[0] === 0x30;
}

/** Key Vault returns files as base64, which is then encoded a second time for the Secret. */
function decodeBase64(text: string): Buffer | undefined {
  const packed = text.replaceAll(/\s/g, '');
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(packed)) return undefined;
  const bytes = Buffer.from(packed, 'base64');
  return isDer(bytes) || isPem(bytes.toString('latin1')) ? bytes : undefined;
}
