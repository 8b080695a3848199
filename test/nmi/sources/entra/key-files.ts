/** Certificates and key files as the openssl command makes them. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface KeyFiles extends AsyncDisposable {
  /** The application's key, PKCS#8 PEM. */
  readonly key: KeyObject;
  readonly keyPem: string;
  /** PEM, each issued by the next. */
  readonly leaf: string;
  readonly intermediate: string;
  readonly root: string;
  /** Another certificate of the application's key, self-signed, which expires `days` from now. */
  selfSigned(days: number): Promise<string>;
  /** An EC key and its certificate, PEM. */
  ec(): Promise<{ readonly keyPem: string; readonly certificate: string }>;
  /** `openssl pkcs12 -export` of key, leaf, root, intermediate, with these arguments. */
  pfx(...args: readonly string[]): Promise<Buffer>;
  /** The same for other PEM. */
  pfxOf(pem: string, ...args: readonly string[]): Promise<Buffer>;
  /** The output of an openssl command for this input. */
  openssl(input: string, ...args: readonly string[]): Promise<string>;
}

/**
 * The reason why the tests with openssl, or with its old ciphers, cannot run; `false` when they
 * can.
 */
export const withoutOpenssl = await lacking(['version'], 'openssl is not installed');
export const withoutLegacy = await lacking(
  ['list', '-providers', '-provider', 'legacy'],
  'openssl has no legacy provider',
);

async function lacking(args: readonly string[], what: string): Promise<string | false> {
  try {
    await run('openssl', args);
    return false;
  } catch {
    return what;
  }
}

export async function openKeyFiles(): Promise<KeyFiles> {
  const dir = await mkdtemp(join(tmpdir(), 'nmi-keys-'));
  const at = (name: string): string => join(dir, name);
  let files = 0;

  async function file(content: string | Buffer): Promise<string> {
    files += 1;
    const path = at(`file-${files}`);
    await writeFile(path, content);
    return path;
  }
  async function openssl(input: string, ...args: readonly string[]): Promise<string> {
    const [command = '', ...rest] = args;
    const { stdout } = await run('openssl', [command, '-in', await file(input), ...rest]);
    return stdout;
  }
  async function selfSigned(keyPem: string, name: string, days: number): Promise<string> {
    const key = await file(keyPem);
    const subject = ['-subj', `/CN=${name}`, '-days', `${days}`];
    const { stdout } = await run('openssl', ['req', '-x509', '-new', '-key', key, ...subject]);
    return stdout;
  }
  async function issued(
    keyPem: string,
    name: string,
    issuer: { readonly certificate: string; readonly keyPem: string },
    extensions: string,
  ): Promise<string> {
    const key = await file(keyPem);
    const request = await run('openssl', ['req', '-new', '-key', key, '-subj', `/CN=${name}`]);
    const { stdout } = await run('openssl', [
      ...['x509', '-req', '-in', await file(request.stdout), '-days', '20'],
      ...['-CA', await file(issuer.certificate), '-CAkey', await file(issuer.keyPem)],
      ...['-set_serial', '7', '-extfile', await file(extensions)],
    ]);
    return stdout;
  }
  async function pfxOf(pem: string, ...args: readonly string[]): Promise<Buffer> {
    const out = at(`out-${(files += 1)}.p12`);
    await run('openssl', ['pkcs12', '-export', '-in', await file(pem), '-out', out, ...args]);
    return readFile(out);
  }

  try {
    const authority = 'basicConstraints=critical,CA:true\nkeyUsage=keyCertSign\n';
    const rootKey = newRsa();
    const intermediateKey = newRsa();
    const own = newRsa();
    const root = await selfSigned(rootKey.pem, 'root', 30);
    const intermediate = await issued(
      intermediateKey.pem,
      'intermediate',
      { certificate: root, keyPem: rootKey.pem },
      authority,
    );
    const leaf = await issued(
      own.pem,
      'application',
      { certificate: intermediate, keyPem: intermediateKey.pem },
      'basicConstraints=CA:false\n',
    );
    return {
      key: own.key,
      keyPem: own.pem,
      leaf,
      intermediate,
      root,
      selfSigned: (days) => selfSigned(own.pem, 'application', days),
      async ec() {
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
        const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
        return { keyPem, certificate: await selfSigned(keyPem, 'curve', 20) };
      },
      pfx: (...args) => pfxOf([own.pem, leaf, root, intermediate].join(''), ...args),
      pfxOf,
      openssl,
      async [Symbol.asyncDispose]() {
        await rm(dir, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

function newRsa(): { readonly key: KeyObject; readonly pem: string } {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { key: privateKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) };
}
