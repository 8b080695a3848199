/** How to start this very program again, as another process. */
import { isSea } from 'node:sea';
import { fileURLToPath } from 'node:url';

/**
 * Program and leading arguments; a verb follows. The single executable is its own program; from
 * source it is Node with `src/main.ts`; a bundle is Node with the bundle.
 */
export function selfCommand(): readonly [string, ...string[]] {
  if (isSea()) return [process.execPath];
  const here = fileURLToPath(import.meta.url);
  const fromSource = here.endsWith('/lab/fabric/self-command.ts');
  return [
    process.execPath,
    fromSource ? fileURLToPath(new URL('../../src/main.ts', import.meta.url)) : here,
  ];
}
