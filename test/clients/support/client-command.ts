/** How a client is started. */
import { join } from 'node:path';
import type { ArmPlace } from './client-lab.ts';
import type { Client, Kit } from './client-matrix.ts';

const programs = join(import.meta.dirname, '../programs');

/** Program and arguments; the job follows. */
export function renderCommand(
  { kit, program = '', args = [] }: Client,
  folder: string,
  arm: ArmPlace,
): readonly [string, ...string[]] {
  const file = join(programs, program);
  const ways: Readonly<Record<Kit, readonly [string, ...string[]]>> = {
    npm: [process.execPath, file, folder, ...args],
    python: [join(folder, 'bin/python'), file, ...args],
    go: [join(folder, 'client'), ...args],
    'azure-cli': [process.execPath, file, folder, ...args, arm.url, arm.caFile],
    'azure-cli-2.64': [process.execPath, file, folder, ...args, arm.url, arm.caFile],
    curl: [process.execPath, file, ...args],
  };
  return ways[kit];
}
