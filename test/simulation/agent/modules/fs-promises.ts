/** In place of node:fs/promises: folders and sockets are those of the simulated machine. */
export * from 'node:fs/promises';
export { lstat, mkdir, rename, unlink } from '../../modules/fs-promises.ts';
