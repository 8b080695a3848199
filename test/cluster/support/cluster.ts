/**
 * A Kubernetes control plane for tests: one etcd and one kube-apiserver on a separate loopback
 * address, with TLS, client certificates, signed service-account tokens, RBAC and the default
 * admission plugins. There is no controller manager, scheduler or kubelet: pods stay as they are
 * written, namespaces get their default service account from {@link Cluster.createNamespace}, and
 * deletions need no grace.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { openApi, type Api, type ApiAccess, type KubeBody } from './api.ts';
import { applyObjects, type ApplyOptions } from './apply-objects.ts';
import type { ClusterBinaries } from './binaries.ts';
import { openClusterFolder } from './cluster-folder.ts';
import { openControlPlane } from './control-plane.ts';
import { renderKubeconfig } from './kubeconfig.ts';
import { runKubectl, type KubectlOptions } from './kubectl.ts';
import type { SigningKey } from './service-account-token.ts';
import { storeCopies, type Copy } from './stored-copies.ts';

/** The object that ends a token's validity when it is deleted. */
export interface BoundObject {
  readonly kind: 'Pod' | 'Secret' | 'Node';
  readonly name: string;
  readonly uid: string;
}

export interface ServiceAccountOptions {
  readonly namespace: string;
  /** Created if it does not exist. */
  readonly name: string;
  /** Default: the API server itself. */
  readonly audiences?: readonly string[];
  /** At least 600; default: an hour. */
  readonly expirationSeconds?: number;
  readonly boundTo?: BoundObject;
}

/** A user of the API server. */
export interface Actor extends AsyncDisposable {
  readonly api: Api;
  readonly token: string;
  /** Path of a file that exists as long as the cluster. */
  readonly kubeconfigPath: string;
}

export interface Cluster extends AsyncDisposable {
  readonly binaries: ClusterBinaries;
  /** Without a trailing slash; the same over restarts. */
  readonly url: string;
  readonly caPem: string;
  /** Issuer of service-account tokens; its discovery document is at this address. */
  readonly issuer: string;
  /** As a member of system:masters, to whom no rule applies. */
  readonly admin: Api;
  /** The same, for another kind of client. */
  readonly adminAccess: ApiAccess;
  /** etcd's own API. */
  readonly etcd: Api;
  /** Path of a kubeconfig file with the administrator's certificate. */
  readonly adminKubeconfig: string;
  /** For files of the tests; removed with the cluster. */
  readonly folder: string;
  /** Process ids of the running servers. */
  readonly pids: readonly number[];
  /** Without credentials. */
  readonly anonymous: Api;
  /** The public keys of the issuer, as the server publishes them. */
  jwks(): Promise<readonly SigningKey[]>;
  /** With its default service account, which pods need to be admitted. */
  createNamespace(name: string, labels?: Readonly<Record<string, string>>): Promise<void>;
  createServiceAccountClient(options: ServiceAccountOptions): Promise<Actor>;
  /** The output of kubectl. Rejects with its error output. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<string>;
  /** `kubectl apply`. */
  apply(yaml: string): Promise<string>;
  /** Server-side apply of every document, without kubectl. */
  applyOverHttp(yaml: string, options?: ApplyOptions): Promise<readonly KubeBody[]>;
  /** SIGKILL; the address stays reserved for {@link startApiserver}. */
  killApiserver(): Promise<void>;
  startApiserver(): Promise<void>;
  /** Stops and starts it normally. Watches end, and its history in memory is lost. */
  restart(): Promise<void>;
  /** See {@link storeCopies}; `kind` is `pods` or `GROUP/PLURAL`, stored as JSON. */
  copy(kind: string, namespace: string, original: string, copies: readonly Copy[]): Promise<void>;
  /** Drops etcd's history up to now. The server's memory keeps its own. */
  compact(): Promise<void>;
  backUp(): Promise<void>;
  /** The servers start again with the data of the last {@link backUp}. */
  restore(): Promise<void>;
}

/** Rejects with the last log lines of the server that did not start; nothing is left then. */
export async function startCluster(
  binaries: ClusterBinaries,
  apiserverFlags: readonly string[] = [],
  etcdFlags: readonly string[] = [],
): Promise<Cluster> {
  await using opening = new AsyncDisposableStack();
  const { path: folder } = opening.use(await openClusterFolder());
  const plane = opening.use(await openControlPlane(binaries, folder, apiserverFlags, etcdFlags));
  const { admin, adminAccess } = plane;
  const { url, caPem } = adminAccess;
  const anonymous = opening.use(openApi({ url, caPem }));
  const adminKubeconfig = await writeKubeconfig(adminAccess);

  async function writeKubeconfig(access: ApiAccess): Promise<string> {
    const path = join(folder, `kubeconfig-${randomBytes(6).toString('hex')}`);
    await writeFile(path, renderKubeconfig(access), { mode: 0o600 });
    return path;
  }

  async function kubectl(args: readonly string[], options: KubectlOptions = {}): Promise<string> {
    const { input, kubeconfigPath = adminKubeconfig } = options;
    return runKubectl(binaries.kubectl, folder, kubeconfigPath, args, input);
  }

  /** Creates it, or leaves it unchanged. */
  async function ensure(path: string, body: object): Promise<void> {
    const { status, body: answer } = await admin.request('POST', path, body);
    if (status !== 201 && status !== 409) throw new Error(`${path}: ${answer.message ?? ''}`);
  }

  const ensureServiceAccount = (namespace: string, name: string): Promise<void> =>
    ensure(`/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } });

  const owned = opening.move();
  return {
    binaries,
    url,
    caPem,
    issuer: url,
    admin,
    adminAccess,
    etcd: plane.etcd,
    adminKubeconfig,
    folder,
    get pids() {
      return plane.pids;
    },
    anonymous,
    async jwks() {
      const { keys } = await admin.expect('GET', '/openid/v1/jwks', undefined, {
        headers: { accept: 'application/jwk-set+json' },
      });
      return keys as readonly SigningKey[];
    },
    async createNamespace(name, labels = {}) {
      await ensure('/api/v1/namespaces', { metadata: { name, labels } });
      await ensureServiceAccount(name, 'default');
    },
    async createServiceAccountClient({ namespace, name, audiences, expirationSeconds, boundTo }) {
      await ensureServiceAccount(namespace, name);
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`;
      const { status } = await admin.expect('POST', path, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: {
          ...(audiences === undefined ? {} : { audiences }),
          ...(expirationSeconds === undefined ? {} : { expirationSeconds }),
          ...(boundTo === undefined ? {} : { boundObjectRef: { apiVersion: 'v1', ...boundTo } }),
        },
      });
      const { token } = status as { readonly token: string };
      const access = { url, caPem, token };
      const api = openApi(access);
      return {
        api,
        token,
        kubeconfigPath: await writeKubeconfig(access),
        [Symbol.asyncDispose]: () => api[Symbol.asyncDispose](),
      };
    },
    kubectl,
    apply: (yaml) => kubectl(['apply', '-f', '-'], { input: yaml }),
    applyOverHttp: (yaml, options) => applyObjects(admin, yaml, options),
    killApiserver: () => plane.killApiserver(),
    startApiserver: () => plane.startApiserver(),
    async restart() {
      await plane.stopApiserver();
      await plane.startApiserver();
    },
    async copy(kind, namespace, original, copies) {
      await storeCopies(plane.etcd, `/registry/${kind}/${namespace}/`, original, copies);
      const last = copies.at(-1)?.name ?? original;
      const [group, plural] = kind.includes('/') ? kind.split('/') : [undefined, kind];
      const api = group === undefined ? '/api/v1' : `/apis/${group}/v1`;
      // The server's memory follows etcd, and lists are answered from there.
      const path = `${api}/namespaces/${namespace}/${plural ?? ''}/${last}?resourceVersion=0`;
      await eventually(() => admin.expect('GET', path), 60_000);
    },
    async compact() {
      const range = await plane.etcd.expect('POST', '/v3/kv/range', { key: 'AA==' });
      const { revision } = range['header'] as { readonly revision: string };
      await plane.etcd.expect('POST', '/v3/kv/compaction', { revision, physical: true });
    },
    backUp: () => plane.backUp(),
    restore: () => plane.restore(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
