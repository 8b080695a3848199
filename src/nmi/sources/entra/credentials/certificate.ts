/** Certificates of type 2: PKCS#12 with its password, or PEM, also of kubernetes.io/tls. */
import type { ObjectName } from '../../../../cache/index/object-name.ts';
import { printableList } from '../../../../base/printable.ts';
import { titleOf } from '../../../kube/accounts/secrets.ts';
import { KeyFileError } from './key-file-error.ts';
import { createKeyFileOpener, type KeyFileOpener } from './key-file-opener.ts';
import type { ClientCredentialResult } from './descriptor.ts';
import {
  describeSecretKind,
  invalidCredential,
  unavailableCredential,
} from './secret-credential.ts';
import { parseUtf8, withoutLineEnd } from './secret-entries.ts';

export const certificateKind = describeSecretKind(
  { kind: 'certificate', type: 2, typeTitle: 'certificate' },
  (context) => {
    const open = createKeyFileOpener();
    return (secret, data) =>
      makeClientCertificate(secret, data, context.clock.wallMs(), open, (expiresAtWallMs) =>
        context.onCertificate({ kind: 'certificate', secret }, expiresAtWallMs),
      );
  },
);

/** Exported for its tests. Never rejects. */
export async function makeClientCertificate(
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
  nowWallMs: number,
  open: KeyFileOpener,
  onExpiry: (expiresAtWallMs: number) => void = () => undefined,
): Promise<ClientCredentialResult> {
  const file = findFile(data);
  if (file === undefined) {
    return invalidCredential(
      `${titleOf(secret)} has neither a key "certificate" nor the keys "tls.crt" and "tls.key"` +
        (data.size === 0 ? '; it has no data' : `; it has ${printableList([...data.keys()])}`),
    );
  }
  const about = `${file.title} of ${titleOf(secret)}`;
  const passwords = passwordsOf(data.get('password'));
  if (passwords === undefined) {
    return invalidCredential(`key "password" of ${titleOf(secret)} is not UTF-8 text`);
  }
  try {
    const { bytes } = file;
    const opened = await open(secret.namespace, { bytes, passwords, nowWallMs });
    const { expiresAtWallMs, ...clientCertificate } = opened;
    onExpiry(expiresAtWallMs);
    return { ok: true, clientCredential: { clientCertificate } };
  } catch (error) {
    if (error instanceof KeyFileError && error.code === 'BUSY') {
      return unavailableCredential(`${about} ${error.message}`);
    }
    return invalidCredential(`${about} ${explain(error, passwords)}`);
  }
}

/** With the entries of the Secret that contain it, as named in errors. */
function findFile(data: ReadonlyMap<string, Buffer>) {
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

/** Unchanged, and without a line end that may not belong to it; undefined if it is not UTF-8. */
function passwordsOf(bytes: Buffer = Buffer.alloc(0)): readonly string[] | undefined {
  const text = parseUtf8(bytes);
  if (text === undefined) return undefined;
  const trimmed = withoutLineEnd(text);
  return trimmed === text ? [text] : [text, trimmed];
}

/** Only the texts of the agent's own errors may be shown to a pod. */
function explain(error: unknown, passwords: readonly string[]): string {
  if (!(error instanceof KeyFileError)) return 'cannot be read';
  if (error.code !== 'WRONG_PASSWORD') return error.message;
  return passwords.includes('')
    ? 'is protected by a password, and there is none under the key "password"'
    : 'is protected by another password than the one under the key "password"';
}
