/** Certificate authorities for Entra ID's certificate, in addition to the built-in ones. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { StartError } from '../../../base/start-error.ts';

const certificates = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** Undefined when no file is named. @throws StartError `CONFIG`. */
export async function readEntraCa(path: string): Promise<string | undefined> {
  if (path === '') return undefined;
  try {
    const found = (await readFile(path, 'utf8')).match(certificates) ?? [];
    // Node accepts a text without a single readable certificate, and then trusts no further authority.
    const [first, ...others] = found.map((pem) => String(new X509Certificate(pem)));
    if (first === undefined) throw new Error('no certificate');
    return [first, ...others].join('');
  } catch (error) {
    const problem = `--entra-ca-file ${path} has no readable PEM certificate`;
    throw new StartError('CONFIG', problem, 'name a file with one, or omit --entra-ca-file', error);
  }
}
