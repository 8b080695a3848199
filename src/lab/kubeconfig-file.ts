/** The fake API's kubeconfig as a file of its own, for the agent process. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FakeKube } from './fake-kube.ts';

export async function writeKubeconfig(
  kube: FakeKube,
): Promise<{ readonly path: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'nmi-lab-'));
  const path = join(folder, 'kubeconfig');
  await writeFile(path, kube.kubeconfig());
  return {
    path,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
