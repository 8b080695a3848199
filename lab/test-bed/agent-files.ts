/** Files that the lab's agent reads: its kubeconfig and the trusted CA of Entra ID. */
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isAlive } from '../fabric/process-alive.ts';

const folderPattern = /^nmi-lab-(\d+)-[A-Za-z0-9]{6}$/;

export interface AgentFiles extends AsyncDisposable {
  readonly kubeconfigPath: string;
  readonly entraCaPath: string;
  /** Socket for requests for explanations. */
  readonly explainSocketPath: string;
  /** In which `nmi redirect run` and an agent exchange files. */
  readonly sharedFolder: string;
}

export async function writeAgentFiles(kubeconfig: string, entraCaPem: string): Promise<AgentFiles> {
  await sweepDeadFolders();
  const folder = await mkdtemp(join(tmpdir(), `nmi-lab-${process.pid}-`));
  // An agent may run as another user.
  await chmod(folder, 0o711);
  const files = {
    kubeconfigPath: join(folder, 'kubeconfig'),
    entraCaPath: join(folder, 'entra-ca.pem'),
    explainSocketPath: join(folder, 'explain.sock'),
    sharedFolder: join(folder, 'shared'),
  };
  // As an empty folder of a pod, to which both containers write.
  await mkdir(files.sharedFolder);
  await chmod(files.sharedFolder, 0o777);
  await writeFile(files.kubeconfigPath, kubeconfig);
  await writeFile(files.entraCaPath, entraCaPem);
  return {
    ...files,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Removes the folders of killed labs. */
async function sweepDeadFolders(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = Number(folderPattern.exec(name)?.[1]);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}
