/** Certificate authorities for Entra ID's certificate, in addition to the built-in ones. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { StartError } from '../../../base/start-error.ts';

/**
 * The PEM text; undefined when no file is named.
 * @throws StartError `CONFIG`.
 */
export async function readEntraCa(path: string): Promise<string | undefined> {
  if (path === '') return undefined;
  try {
    const pem = await readFile(path, 'utf8');
    // Without this check, a file without a certificate would be accepted and add no authority.
    assertCertificate(pem);
    return pem;
  } catch (error) {
    const problem = `--entra-ca-file ${path} has no readable PEM certificate`;
    throw new StartError('CONFIG', problem, 'name a file with one, or omit --entra-ca-file', error);
  }
}

function assertCertificate(pem: string): X509Certificate {
  return new X509Certificate(pem);
}
