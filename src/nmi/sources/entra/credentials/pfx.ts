/**
 * PKCS#12 files (RFC 7292), by node-forge. Some files block the calling thread for seconds, so only
 * the worker calls it. Derivations are bounded, and left to OpenSSL, by replacing functions that
 * node-forge calls through its own objects.
 */
import { pbkdf2Sync } from 'node:crypto';
import forge from 'node-forge/lib/forge.js';
import md from 'node-forge/lib/md.all.js';
import pkcs12 from 'node-forge/lib/pkcs12.js';
import { asRecord } from '../../../../base/json-value.ts';
import { KeyFileError } from './key-file-error.ts';

const { asn1, pkcs5, pki } = forge;
const { oids, pbe } = pki;

type Asn1 = forge.asn1.Asn1;
type Password = string | null;

export interface PfxContent {
  /** DER of PKCS#8. */
  readonly keys: readonly Buffer[];
  /** DER. In the order of the file, which may differ from the order of the chain. */
  readonly certificates: readonly Buffer[];
}

/** NSS writes 600,000, OpenSSL 2,048, Windows 2,000, Java 10,000. */
const maxRounds = 1_000_000;
/**
 * For one file and password, in rounds of PBKDF2, 0.8 µs each, that no deadline interrupts. A round
 * of PKCS#12's own derivation, in JavaScript, takes up to 18 µs.
 */
const maxCost = 3_500_000;
const ownRoundCost = 20;
let cost = 0;

function spend(rounds: number, times: number): void {
  cost += rounds * times;
  if (!(rounds >= 0 && rounds <= maxRounds && cost <= maxCost)) throw tooCostly();
}

function tooCostly(): KeyFileError {
  return new KeyFileError(
    'TOO_COSTLY',
    'stretches its password by too many iterations; export it again with 10000 or fewer',
  );
}

/** By OpenSSL, of the password as UTF-8: node-forge takes 6 s for 600,000 rounds, and bytes for text. */
function pbkdf2(
  password: Password,
  salt: string,
  rounds: number,
  length: number,
  { algorithm, digestLength }: forge.md.MessageDigest,
): string {
  spend(rounds, Math.ceil(length / digestLength));
  const saltBytes = Buffer.from(salt, 'latin1');
  return pbkdf2Sync(password ?? '', saltBytes, rounds, length, algorithm).toString('latin1');
}

const { generatePkcs12Key } = pbe;
const generateKey: typeof generatePkcs12Key = (
  password,
  salt,
  purpose,
  rounds,
  length,
  digest = md.sha1.create(),
) => {
  spend(rounds, ownRoundCost * Math.ceil(length / digest.digestLength));
  return generatePkcs12Key(password, salt, purpose, rounds, length, digest);
};
Object.assign(pkcs5, { pbkdf2 });
Object.assign(pbe, { generatePkcs12Key: generateKey });
Object.assign(pkcs12, { generateKey });

const macOids: ReadonlySet<string | undefined> = new Set(
  ['sha1', 'sha256', 'sha384', 'sha512'].map((name) => oids[name]),
);

const bagOids = ' 1.2.840.113549.1.12.10.1.';

/** @param passwords tried in this order. @throws KeyFileError */
export function readPfx(bytes: Buffer, passwords: readonly string[]): PfxContent {
  const file = parseDer(bytes);
  return openWithAny(passwords, (password) => {
    const [algorithm] = childrenOf(childrenOf(childrenOf(childrenOf(file)[2])[0])[0]);
    const macOid = asn1.derToOid(textOf(algorithm));
    if (algorithm !== undefined && !macOids.has(macOid)) throw unsupported(macOid);
    const { safeContents } = readSafes(file, password);
    const keys: Buffer[] = [];
    const certificates: Buffer[] = [];
    for (const bag of safeContents.flatMap(({ safeBags }) => safeBags)) {
      if (bag.asn1 === undefined) continue;
      (bag.type === oids['certBag'] ? certificates : keys).push(toDer(bag.asn1));
    }
    return { keys, certificates };
  });
}

/** Keys and certificates are not parsed here: OpenSSL reads them. */
function readSafes(file: Asn1, password: Password): ReturnType<typeof pkcs12.pkcs12FromAsn1> {
  const { privateKeyFromAsn1, certificateFromAsn1 } = pki;
  Object.assign(pki, { privateKeyFromAsn1: undefined, certificateFromAsn1: undefined });
  try {
    return pkcs12.pkcs12FromAsn1(file, false, password);
  } finally {
    Object.assign(pki, { privateKeyFromAsn1, certificateFromAsn1 });
  }
}

/** @throws KeyFileError */
export function parseDer(bytes: Buffer): Asn1 {
  try {
    return asn1.fromDer(bytes.toString('latin1'));
  } catch {
    // The library's errors may quote their input.
    throw new KeyFileError('MALFORMED', 'is damaged');
  }
}

export function toDer(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** The children of a sequence, a set, or an explicit tag; empty for anything else. */
export function childrenOf(node: Asn1 | undefined): readonly Asn1[] {
  return typeof node?.value === 'object' ? node.value : [];
}

/** The content of a string, a number or an identifier, one character per byte; empty for others. */
export function textOf(node: Asn1 | undefined): string {
  return typeof node?.value === 'string' ? node.value : '';
}

function openWithAny(
  passwords: readonly string[],
  open: (password: Password) => PfxContent,
): PfxContent {
  let isMisshapen = true;
  // An empty password may mean an empty one or none: these derive different keys.
  for (const password of passwords.includes('') ? [...passwords, null] : passwords) {
    cost = 0;
    try {
      return open(password);
    } catch (error) {
      if (error instanceof KeyFileError) throw error;
      // The library's errors contain the affected part in fields.
      const { oid, contentType = oid, version, errors = version } = asRecord(error) ?? {};
      if (contentType !== undefined) throw unsupported(contentType);
      isMisshapen &&= errors !== undefined;
    }
  }
  if (isMisshapen) throw new KeyFileError('MALFORMED', 'is damaged, or not PKCS#12');
  throw new KeyFileError('WRONG_PASSWORD', 'is protected by another password');
}

function unsupported(oid: unknown): KeyFileError {
  // It may be as long as its file, and binary.
  const named = typeof oid === 'string' && /^[\d.]{1,64}$/.test(oid) ? ` ${oid}` : '';
  return new KeyFileError(
    'UNSUPPORTED',
    named.startsWith(bagOids)
      ? `contains more than keys and certificates (a bag of type${named}); export it again without that`
      : `uses the encryption${named}, which is not supported; export it again: openssl pkcs12 -legacy -nodes -in OLD | openssl pkcs12 -export -out NEW`,
  );
}
