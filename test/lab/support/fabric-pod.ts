/** For tests that need real namespaces: why they cannot run, and how a pod's process is started. */
import { fileURLToPath } from 'node:url';

import { findFabricObstacle } from '../../../lab/fabric/fabric.ts';

/** A skip reason for node:test, or false. */
export const fabricSkip: string | false = findFabricObstacle() ?? false;

export const labPodCommand: readonly [string, string] = [
  process.execPath,
  fileURLToPath(new URL('lab-pod.ts', import.meta.url)),
];

export function supportCommand(file: string): readonly [string, string] {
  return [process.execPath, fileURLToPath(new URL(file, import.meta.url))];
}
