/** What the commands that build an image have in common. */
import { readFileSync } from 'node:fs';

/** Lines of sources.list from a file, if one is named. */
export function readSources(file: string | undefined): readonly string[] | undefined {
  return file === undefined ? undefined : readFileSync(file, 'utf8').split('\n');
}

/** Runs a command of `./dev`. Some unpacked and copied files keep their mode. */
export async function runCommand(command: string, run: () => Promise<void>): Promise<void> {
  process.umask(0o022);
  try {
    await run();
  } catch (err) {
    process.stderr.write(`${command}: ${err instanceof Error ? err.message : 'failed'}\n`);
    process.exitCode = 1;
  }
}
