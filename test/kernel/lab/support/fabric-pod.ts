/** For tests that need real namespaces: why they cannot run, and how their own programs start. */
import { fileURLToPath } from 'node:url';

import { findFabricObstacle } from '../../../../lab/fabric/fabric.ts';

/** A skip reason for node:test, or false. */
export const fabricSkip: string | false = findFabricObstacle() ?? false;

export function supportCommand(file: string): readonly [string, string] {
  return [process.execPath, fileURLToPath(new URL(file, import.meta.url))];
}
