/**
 * The kubectl plugin as one Linux executable with this Node inside, for machines without Node.js:
 * `./dev build` makes `dist/kubectl-nmi-linux-ARCH`.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { freshExecutable, repositoryRoot } from './build.ts';

/** Builds it from the current sources, unless it is there. @returns its path. */
export async function makePluginExecutable(): Promise<string> {
  await freshExecutable();
  const dist = join(repositoryRoot, 'dist');
  const made = join(dist, `kubectl-nmi-linux-${process.arch === 'x64' ? 'amd64' : process.arch}`);
  const script = join(dist, 'kubectl-nmi');
  const isFresh = existsSync(made) && statSync(made).mtimeMs >= statSync(script).mtimeMs;
  if (!isFresh) embedPlugin(script, process.execPath, made);
  return made;
}

/** @param node the executable to embed the script in, for whatever processor. */
export function embedPlugin(script: string, node: string, made: string): void {
  const work = mkdtempSync(join(dirname(made), '.build-'));
  try {
    copyFileSync(script, join(work, 'kubectl-nmi.cjs'));
    const config = {
      main: 'kubectl-nmi.cjs',
      output: 'made',
      executable: node,
      disableExperimentalSEAWarning: true,
    };
    writeFileSync(join(work, 'sea.json'), JSON.stringify(config));
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--build-sea', 'sea.json'], {
      cwd: work,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`node --build-sea failed: ${stdout}${stderr}`);
    renameSync(join(work, 'made'), made);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (import.meta.main) process.stdout.write(`${await makePluginExecutable()}\n`);
