/**
 * Certificates of `AzureIdentity` type 2: a PKCS#12 file under the key `certificate` with its
 * password under `password`, as the replaced system had them. PEM is taken too, there or under the
 * keys of a Secret of type kubernetes.io/tls.
 */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { X509Certificate, type KeyObject } from 'node:crypto';
import { titleOf } from '../../../kube/accounts/secrets.ts';
import { KeyFileError } from './key-file-error.ts';
import { proveKeyPair } from './key-pair.ts';
import {
  invalidCredential,
  openKeptProofs,
  type KeptProofsOptions,
  type SecretProofProvider,
} from './credential-cache.ts';
import { isPem, readPem } from './pem.ts';
import { readPfx } from './pfx.ts';
import { openPkcs8 } from './private-key.ts';
import type { ProofResult } from './client-credential.ts';
import { listKeys, parseUtf8, withoutLineEnd } from './secret-entries.ts';
import { Turns } from './turns.ts';

/** Chains of real authorities take 10 KB; what is read grows to many small objects. */
const maxFileBytes = 64 * 1024;

interface KeyFile {
  /** The entries it was taken from, as an error calls them. */
  readonly title: string;
  readonly bytes: Buffer;
}

interface Content {
  readonly keys: readonly KeyObject[];
  /** DER. */
  readonly certificates: readonly Buffer[];
}

export function openCertificateProofs(
  options: KeptProofsOptions,
): SecretProofProvider<'certificate'> {
  const turns = new Turns();
  return openKeptProofs(
    (secret, data) => makeCertificateProof(secret, data, options.clock.wallMs(), turns),
    options,
  );
}

/** Exported for its tests: no I/O. Never rejects. */
export async function makeCertificateProof(
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
  nowWallMs: number,
  turns: Turns,
): Promise<ProofResult> {
  const file = findFile(data);
  if (file === undefined) {
    return invalidCredential(
      `${titleOf(secret)} has neither a key "certificate" nor the keys "tls.crt" and "tls.key"` +
        (data.size === 0 ? '; it has no data' : `; it has ${listKeys(data)}`),
    );
  }
  const about = `${file.title} of ${titleOf(secret)}`;
  const passwords = passwordsOf(data.get('password'));
  if (passwords === undefined) {
    return invalidCredential(`key "password" of ${titleOf(secret)} is not UTF-8 text`);
  }
  try {
    const { keys, certificates } = await readFile(file.bytes, passwords, turns);
    return { ok: true, proof: proveKeyPair(keys, certificates, nowWallMs) };
  } catch (error) {
    return invalidCredential(`${about} ${explain(error, passwords)}`);
  }
}

function findFile(data: ReadonlyMap<string, Buffer>): KeyFile | undefined {
  const bytes = data.get('certificate');
  if (bytes !== undefined) return { title: 'key "certificate"', bytes };
  const certificate = data.get('tls.crt');
  const key = data.get('tls.key');
  if (certificate === undefined || key === undefined) return undefined;
  return {
    title: 'keys "tls.crt" and "tls.key"',
    bytes: Buffer.concat([certificate, Buffer.from('\n'), key]),
  };
}

/** As it is, and without the line end that may not belong to it; `undefined` if it is no text. */
function passwordsOf(bytes: Buffer = Buffer.alloc(0)): readonly string[] | undefined {
  const text = parseUtf8(bytes);
  if (text === undefined) return undefined;
  const trimmed = withoutLineEnd(text);
  return trimmed === text ? [text] : [text, trimmed];
}

async function readFile(
  bytes: Buffer,
  passwords: readonly string[],
  turns: Turns,
): Promise<Content> {
  if (bytes.length === 0) throw new KeyFileError('MALFORMED', 'is empty');
  if (bytes.length > maxFileBytes) {
    throw new KeyFileError('MALFORMED', `is longer than ${maxFileBytes} bytes`);
  }
  const text = bytes.toString('latin1');
  if (isPem(text)) return readPem(text, passwords, turns);
  if (isDer(bytes)) return readDer(bytes, passwords, turns);
  const inner = decodeBase64(text);
  if (inner === undefined) {
    throw new KeyFileError('MALFORMED', 'is neither PKCS#12 nor PEM');
  }
  const innerText = inner.toString('latin1');
  return isPem(innerText) ? readPem(innerText, passwords, turns) : readDer(inner, passwords, turns);
}

async function readDer(
  bytes: Buffer,
  passwords: readonly string[],
  turns: Turns,
): Promise<Content> {
  if (isCertificate(bytes)) {
    throw new KeyFileError('UNSUITABLE', 'is a certificate without its private key');
  }
  const { keys, certificates } = await readPfx(bytes, passwords, turns);
  // Said before any is opened: there may be hundreds.
  if (keys.length > 1) throw new KeyFileError('UNSUITABLE', 'has several private keys');
  return { keys: await Promise.all(keys.map(openPkcs8)), certificates };
}

function isCertificate(bytes: Buffer): boolean {
  try {
    return new X509Certificate(bytes).raw.length > 0;
  } catch {
    return false;
  }
}

/** A sequence, which both PKCS#12 and certificates are. */
function isDer(bytes: Buffer): boolean {
  return bytes[0] === 0x30;
}

/** Key Vault gives files as base64, which then is encoded a second time for the Secret. */
function decodeBase64(text: string): Buffer | undefined {
  const packed = text.replaceAll(/\s/g, '');
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(packed)) return undefined;
  const bytes = Buffer.from(packed, 'base64');
  return isDer(bytes) || isPem(bytes.toString('latin1')) ? bytes : undefined;
}

/** Only our own errors are written to be seen by a pod. */
function explain(error: unknown, passwords: readonly string[]): string {
  if (!(error instanceof KeyFileError)) return 'cannot be read';
  if (error.code !== 'WRONG_PASSWORD') return error.message;
  return passwords.includes('')
    ? 'is protected by a password, and there is none under the key "password"'
    : 'is protected by another password than the one under the key "password"';
}
