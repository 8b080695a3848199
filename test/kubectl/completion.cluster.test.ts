/** Completion by kubectl's own mechanism: the real kubectl finds `kubectl_complete-nmi` on the PATH. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, it } from 'node:test';
import { promisify } from 'node:util';
import { describeOnNewestVersion } from '../cluster/support/on-clusters.ts';

const main = join(import.meta.dirname, '../../src/kubectl/main.ts');

describeOnNewestVersion('kubectl completes nmi', (cluster) => {
  let path: string;

  before(async () => {
    await cluster().createNamespace('shop');
    await cluster().applyOverHttp(`
apiVersion: v1
kind: Pod
metadata: { name: web-7d4b9, namespace: shop }
spec: { containers: [{ name: web, image: web }] }
`);
    path = join(cluster().folder, 'plugin');
    await mkdir(path);
    const mode = 0o755;
    const script = `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`;
    await writeFile(join(path, 'kubectl-nmi'), script, { mode });
    // As scripts/build.ts writes it.
    const completing = '#!/bin/sh\nexec kubectl-nmi __complete "$@"\n';
    await writeFile(join(path, 'kubectl_complete-nmi'), completing, { mode });
  });

  async function complete(...words: readonly string[]): Promise<readonly string[]> {
    const { binaries, adminKubeconfig, folder } = cluster();
    const { stdout } = await promisify(execFile)(
      binaries.kubectl,
      ['__complete', 'nmi', ...words],
      {
        env: {
          PATH: `${path}:${process.env['PATH'] ?? ''}`,
          HOME: folder,
          KUBECONFIG: adminKubeconfig,
          KUBECTL: binaries.kubectl,
        },
      },
    );
    return stdout.trimEnd().split('\n');
  }

  it('verbs, flags, namespaces and pods', async () => {
    assert.deepEqual(await complete('exp'), ['explain', ':4']);
    assert.deepEqual(await complete('doctor', '--pr'), ['--pre', ':4']);
    assert.deepEqual(await complete('explain', '-n', 'sh'), ['shop', ':4']);
    assert.deepEqual(await complete('explain', '-n', 'shop', 'pod', 'w'), ['web-7d4b9', ':4']);
  });
});
