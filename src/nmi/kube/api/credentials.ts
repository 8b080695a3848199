/**
 * Credentials for the Kubernetes API: `KubeConfig` of @kubernetes/client-node, from a kubeconfig or
 * from the pod's service account. Only credentials and TLS settings come from that library; it is
 * imported by file so that the bundle excludes its generated models.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { KubeError } from './kube-error.ts';

/** Address, credentials and TLS settings of a request. */
export interface Access {
  /** Scheme, host and port. */
  readonly origin: string;
  /** Prefix of every path; empty, or `/prefix` without a trailing slash. */
  readonly pathPrefix: string;
  /** Authorization and impersonation, trimmed. */
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: AccessTls;
  /** Changes exactly when connections must be reopened; a hash, safe to store and compare. */
  readonly fingerprint: string;
}

export interface AccessTls {
  readonly ca?: string | Buffer | undefined;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  readonly servername?: string | undefined;
  readonly rejectUnauthorized?: boolean;
}

export interface Credentials {
  /**
   * The credentials of this moment. Token files are read again when the last reading is more than
   * a minute old, CA and certificate files on every call. Rejects with `KubeError` CONFIG.
   */
  current(): Promise<Access>;
  /** Deletes all cached credentials (token, exec result, kubeconfig) after a refusal. */
  forget(): void;
}

export interface CredentialOptions {
  /** Value of KUBECONFIG; empty or absent means in-cluster. */
  readonly kubeconfigPath?: string | undefined;
  /** Where KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are looked up. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Folder with `token` and `ca.crt`; by default where the kubelet mounts it. */
  readonly serviceAccountDir?: string;
}

const mounted = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Reads the configuration once, so that a missing one fails here. Throws `KubeError` CONFIG. */
export function loadCredentials(options: CredentialOptions): Credentials {
  const load = (): KubeConfig =>
    options.kubeconfigPath === undefined || options.kubeconfigPath === ''
      ? inCluster(options)
      : fromKubeconfig(options.kubeconfigPath);
  let config: KubeConfig | undefined = load();
  return {
    async current() {
      config ??= load();
      return readAccess(config);
    },
    forget() {
      config = undefined;
    },
  };
}

function inCluster({ environment, serviceAccountDir = mounted }: CredentialOptions): KubeConfig {
  const host = environment['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = environment['KUBERNETES_SERVICE_PORT'] ?? '';
  if (host === '' || port === '') {
    throw new KubeError(
      'CONFIG',
      'no kubeconfig was given and KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set: not running in a pod',
    );
  }
  const tokenFile = join(serviceAccountDir, 'token');
  const caFile = join(serviceAccountDir, 'ca.crt');
  for (const file of [tokenFile, caFile]) assertReadable(file);
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    {
      name: 'in-cluster',
      server: `https://${isIPv6(host) ? `[${host}]` : host}:${port}`,
      caFile,
      skipTLSVerify: false,
    },
    { name: 'service-account', authProvider: { name: 'tokenFile', config: { tokenFile } } },
  );
  return config;
}

function assertReadable(file: string): void {
  try {
    accessSync(file, constants.R_OK);
  } catch (cause) {
    throw new KubeError('CONFIG', `cannot read ${file}: is a service account mounted?`, { cause });
  }
}

function fromKubeconfig(path: string): KubeConfig {
  const config = new KubeConfig();
  try {
    config.loadFromFile(path);
  } catch (cause) {
    throw new KubeError('CONFIG', `cannot use kubeconfig ${path}: ${messageOf(cause)}`, { cause });
  }
  const cluster = config.getCurrentCluster();
  if (cluster === null || config.getCurrentUser() === null) {
    throw new KubeError(
      'CONFIG',
      `kubeconfig ${path}: the current context does not name a cluster and a user that exist`,
    );
  }
  if (typeof cluster.proxyUrl === 'string' && cluster.proxyUrl !== '') {
    throw new KubeError('CONFIG', `kubeconfig ${path}: proxy-url is not supported`);
  }
  // The library refuses plain http unless verification is off; without TLS there is none to skip.
  config.clusters = config.clusters.map((entry) =>
    entry.server.startsWith('http:') ? { ...entry, skipTLSVerify: true } : entry,
  );
  return config;
}

async function readAccess(config: KubeConfig): Promise<Access> {
  const server = serverOf(config);
  const options: RequestOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (cause) {
    throw new KubeError('CONFIG', `cannot load credentials: ${messageOf(cause)}`, { cause });
  }
  const tls = tlsOf(options);
  const origin = server.origin;
  return {
    origin,
    pathPrefix: withoutTrailingSlashes(server.pathname),
    headers: headersOf(options),
    tls,
    fingerprint: fingerprintOf(origin, tls),
  };
}

function serverOf(config: KubeConfig): URL {
  const text = config.getCurrentCluster()?.server ?? '';
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === 'http:' || url.protocol === 'https:')) return url;
  throw new KubeError('CONFIG', `the cluster's server is not an http or https address: ${text}`);
}

function headersOf(options: RequestOptions): Record<string, string> {
  const headers: Record<string, string> = {};
  // A token file that ends in a newline makes the HTTP client refuse the header.
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    if (typeof value === 'string') headers[name.toLowerCase()] = value.trim();
  }
  if (typeof options.auth === 'string') {
    headers['authorization'] = `Basic ${Buffer.from(options.auth).toString('base64')}`;
  }
  return headers;
}

function tlsOf(options: RequestOptions): AccessTls {
  const { ca, cert, key, servername, rejectUnauthorized } = options;
  return {
    ...(isPem(ca) ? { ca } : {}),
    ...(isPem(cert) ? { cert } : {}),
    ...(isPem(key) ? { key } : {}),
    ...(servername === undefined ? {} : { servername }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
  };
}

function isPem(value: unknown): value is string | Buffer {
  return typeof value === 'string' || Buffer.isBuffer(value);
}

function fingerprintOf(origin: string, tls: AccessTls): string {
  const { ca, cert, key, servername, rejectUnauthorized } = tls;
  const parts = [origin, ca, cert, key, servername, rejectUnauthorized].map(String);
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function withoutTrailingSlashes(path: string): string {
  let end = path.length;
  while (path[end - 1] === '/') end--;
  return path.slice(0, end);
}
