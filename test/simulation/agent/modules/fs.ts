/** In place of node:fs: descriptors and sockets are those of the simulated process. */
export * from 'node:fs';
export { closeSync, lstatSync } from '../../modules/fs.ts';
