/** The plugin in a pod, where kubectl has no configuration but the account of the pod. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { promisify } from 'node:util';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';
import { identity } from './support/mistakes.ts';
import { developerRole } from './support/put-objects.ts';

const root = join(import.meta.dirname, '../..');

/** The kubelet mounts the account of a pod there. */
const inPod = `
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$ACCOUNT"/* /run/secrets/kubernetes.io/serviceaccount
exec "$@"
`;

describeOnNewestVersion('kubectl nmi in a pod', (cluster) => {
  let account: string;
  before(async () => {
    await cluster().createNamespace('shop');
    await cluster().apply(await readFile(join(root, 'deploy/crds.yaml'), 'utf8'));
    await eventually(() => cluster().apply(developerRole + identity()));
    const name = { namespace: 'shop', name: 'developer' };
    await using developer = await cluster().createServiceAccountClient(name);
    account = join(cluster().folder, 'account');
    await mkdir(account);
    await writeFile(join(account, 'token'), developer.token);
    await writeFile(join(account, 'ca.crt'), cluster().caPem);
    await writeFile(join(account, 'namespace'), 'shop');
  });

  it('has the rights and the namespace of the pod', async () => {
    const { hostname, port } = new URL(cluster().url);
    const { stdout } = await promisify(execFile)(
      'unshare',
      [
        ...['--user', '--map-root-user', '--mount', 'sh', '-ec', inPod, 'sh'],
        ...[process.execPath, join(root, 'src/kubectl/main.ts'), 'identity', 'list'],
      ],
      {
        env: {
          PATH: process.env['PATH'],
          HOME: join(account, 'home'),
          ACCOUNT: account,
          KUBECTL: cluster().binaries.kubectl,
          KUBERNETES_SERVICE_HOST: hostname,
          KUBERNETES_SERVICE_PORT: port,
        },
      },
    );
    assert.match(stdout, /^shop +orders +user-assigned /m);
  });
});
