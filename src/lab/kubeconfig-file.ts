/** The fake API's kubeconfig as a file of its own, for the agent process. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FakeKube } from './fake-kube.ts';
import { isAlive } from './process-alive.ts';

const folderPattern = /^nmi-lab-(\d+)-[A-Za-z0-9]{6}$/;

export async function writeKubeconfig(
  kube: FakeKube,
): Promise<{ readonly path: string } & AsyncDisposable> {
  await sweepDeadFolders();
  const folder = await mkdtemp(join(tmpdir(), `nmi-lab-${process.pid}-`));
  const path = join(folder, 'kubeconfig');
  await writeFile(path, kube.kubeconfig());
  return {
    path,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** What labs left behind that were killed. */
async function sweepDeadFolders(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = Number(folderPattern.exec(name)?.[1]);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}
