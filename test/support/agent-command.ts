import { fileURLToPath } from 'node:url';
import type { Command } from '../../lab/fabric/lab-command.ts';

/** Starts `nmi` from its sources, which needs no build. */
export const agentCommand: Command = [
  process.execPath,
  fileURLToPath(new URL('../../src/main.ts', import.meta.url)),
];
