/** etcd and kube-apiserver as processes: their files, flags, starts and stops. */
import { generateKeyPairSync, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createLabAuthority } from '../../../lab/fakes/authority.ts';
import { openApi, type Api, type ApiAccess } from './api.ts';
import type { ClusterBinaries } from './binaries.ts';
import { startChildServer, type ChildServer } from './child-server.ts';

export interface ControlPlane extends AsyncDisposable {
  /** The API server as a member of system:masters. */
  readonly adminAccess: ApiAccess & { readonly caPem: string };
  readonly admin: Api;
  /** etcd's own API, over its HTTP gateway. */
  readonly etcd: Api;
  readonly pids: readonly number[];
  /** Returns when it is ready. Rejects with its last log lines if it ends or takes too long. */
  startApiserver(): Promise<void>;
  /** SIGTERM: watches are closed normally. */
  stopApiserver(): Promise<void>;
  /** SIGKILL. */
  killApiserver(): Promise<void>;
  /** Copies etcd's data; etcd is stopped during the copy. */
  backUp(): Promise<void>;
  /** Stops both servers, and starts them with the data of the last backup. */
  restore(): Promise<void>;
}

/** A start takes 5 s; with other work on two cores it may take much longer. */
const startTimeoutMs = 120_000;

/** `folder` gets keys, certificates, data and logs, and is not removed here. */
export async function openControlPlane(
  binaries: ClusterBinaries,
  folder: string,
  moreApiserverFlags: readonly string[] = [],
  moreEtcdFlags: readonly string[] = [],
): Promise<ControlPlane> {
  await using opening = new AsyncDisposableStack();
  const host = loopbackAddress();
  const apiPort = await freePort(host);
  const authority = await createLabAuthority();
  const server = await authority.issueServer([host, 'localhost', 'kubernetes.default.svc']);
  const administrator = await authority.issueClient('admin', {
    signedBy: 'authority',
    organizations: ['system:masters'],
  });
  const signing = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const client = {
    caPem: authority.certificatePem,
    certPem: administrator.certificatePem,
    keyPem: administrator.keyPem,
  };
  const pki = await writeFiles(join(folder, 'pki'), {
    ca: client.caPem,
    cert: server.cert,
    key: server.key,
    tokenKey: signing.privateKey,
    tokenPublicKey: signing.publicKey,
  });
  const adminAccess = { ...client, url: `https://${host}:${apiPort}` };
  const admin = opening.use(openApi(adminAccess));
  const etcd = opening.use(openApi({ url: 'http://etcd', socketPath: join(folder, etcdSocket) }));

  const startEtcd = (): Promise<ChildServer> =>
    startChildServer('etcd', binaries.etcd, [...etcdFlags, ...moreEtcdFlags], folder);
  let store = await startEtcd();
  opening.defer(() => store.kill());

  let apiserver: ChildServer | undefined;
  async function startApiserver(): Promise<void> {
    apiserver = await startChildServer(
      'kube-apiserver',
      binaries.kubeApiserver,
      [
        ...apiserverFlags(pki, host, apiPort, adminAccess.url, join(folder, etcdSocket)),
        ...moreApiserverFlags,
      ],
      folder,
    );
    await untilReady(admin, [store, apiserver]);
  }
  opening.defer(async () => {
    await apiserver?.kill();
  });
  await startApiserver();

  const owned = opening.move();
  return {
    adminAccess,
    admin,
    etcd,
    get pids() {
      return [store, apiserver].flatMap((child) =>
        child === undefined || child.ended !== undefined ? [] : [child.pid],
      );
    },
    startApiserver,
    stopApiserver: async () => apiserver?.stop(),
    killApiserver: async () => apiserver?.kill(),
    async backUp() {
      await store.stop();
      await cp(join(folder, 'etcd'), join(folder, 'backup'), { recursive: true });
      store = await startEtcd();
    },
    async restore() {
      await apiserver?.kill();
      await store.stop();
      await rm(join(folder, 'etcd'), { recursive: true });
      await cp(join(folder, 'backup'), join(folder, 'etcd'), { recursive: true });
      store = await startEtcd();
      await startApiserver();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface Pki {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly tokenKey: string;
  readonly tokenPublicKey: string;
}

/** In the folder, which only this user may enter. With TLS a start of both servers takes a quarter longer. */
const etcdSocket = 'etcd.sock';

const etcdFlags: readonly string[] = [
  '--data-dir=etcd',
  `--listen-client-urls=unix://${etcdSocket}`,
  // Nobody connects to it; etcd 3.6, that of Kubernetes 1.34, accepts no socket file here.
  '--advertise-client-urls=http://127.0.0.1:1',
  '--listen-peer-urls=unix://peer.sock',
  // Nothing here has to survive a crash of the machine.
  '--unsafe-no-fsync',
  '--log-level=warn',
];

function apiserverFlags(
  pki: Pki,
  host: string,
  port: number,
  issuer: string,
  etcdPath: string,
): readonly string[] {
  return [
    `--bind-address=${host}`,
    `--secure-port=${port}`,
    // No pod here reaches the `kubernetes` service, and its endpoints cannot be on loopback.
    `--advertise-address=${host}`,
    '--endpoint-reconciler-type=none',
    '--service-cluster-ip-range=10.96.0.0/16',
    `--tls-cert-file=${pki.cert}`,
    `--tls-private-key-file=${pki.key}`,
    `--client-ca-file=${pki.ca}`,
    `--etcd-servers=unix://${etcdPath}`,
    // Only tests compact.
    '--etcd-compaction-interval=0',
    `--service-account-issuer=${issuer}`,
    `--service-account-signing-key-file=${pki.tokenKey}`,
    `--service-account-key-file=${pki.tokenPublicKey}`,
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    '--allow-privileged',
  ];
}

async function untilReady(admin: Api, servers: readonly ChildServer[]): Promise<void> {
  const endMs = performance.now() + startTimeoutMs;
  while (!(await isReady(admin))) {
    const ended = servers.find((server) => server.ended !== undefined);
    const slow = performance.now() > endMs ? servers.at(-1) : undefined;
    const failed = ended ?? slow;
    if (failed !== undefined) {
      const what = failed.ended ?? `not ready within ${startTimeoutMs} ms`;
      throw new Error(`${failed.name}: ${what}\n${failed.lastWords()}`);
    }
    await delay(50);
  }
}

async function isReady(admin: Api): Promise<boolean> {
  try {
    return (await admin.probe('/readyz')) === 200;
  } catch {
    return false;
  }
}

/**
 * An address that no other program uses, so that a port is still free when a killed server starts
 * again on it.
 */
function loopbackAddress(): string {
  return `127.${randomInt(16, 255)}.${randomInt(0, 256)}.${randomInt(1, 255)}`;
}

/** A port that was free a moment ago: the server cannot choose one itself. */
async function freePort(host: string): Promise<number> {
  const server = createServer();
  server.listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Paths of the files, by the same names. */
async function writeFiles<K extends string>(
  folder: string,
  texts: Readonly<Record<K, string>>,
): Promise<Readonly<Record<K, string>>> {
  await mkdir(folder, { recursive: true });
  const paths: Partial<Record<K, string>> = {};
  for (const name of Object.keys(texts) as K[]) {
    const path = join(folder, `${name}.pem`);
    await writeFile(path, texts[name], { mode: 0o600 });
    paths[name] = path;
  }
  return paths as Record<K, string>;
}
