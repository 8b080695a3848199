/** Listening at a path of the file system, where a process that was killed leaves its socket behind. */
import { once } from 'node:events';
import { lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { networkCode } from '../base/network-code.ts';

/**
 * Listens, in the place of a socket that nobody answers any more.
 * @param mode of the socket.
 * @returns why it does not, or undefined when it does. Failures of another kind are thrown.
 */
export async function listenAt(
  server: Server,
  path: string,
  mode: number,
): Promise<string | undefined> {
  if (await tryListen(server, path, mode)) return undefined;
  if (!(await lstat(path)).isSocket()) return 'something that is no socket is there';
  if (await isAnswered(path)) return 'another process answers there';
  await unlink(path);
  return (await tryListen(server, path, mode)) ? undefined : 'another process has just taken it';
}

/** Not the folders above it: under /proc Node 26 tries those for ever. */
export async function makeFolder(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (networkCode(error) !== 'EEXIST') throw error;
  }
}

/** False when the path is taken. */
async function tryListen(server: Server, path: string, mode: number): Promise<boolean> {
  try {
    listenNow(server, path, mode);
    await once(server, 'listening');
    return true;
  } catch (error) {
    if (networkCode(error) === 'EADDRINUSE') return false;
    throw error;
  }
}

/**
 * Not chmod(2) afterwards, which goes by the name: another user of the folder could put a link to
 * another file there in between. Node binds before `listen` returns.
 */
function listenNow(server: Server, path: string, mode: number): void {
  const umask = process.umask(0o777 & ~mode);
  try {
    server.listen({ path });
  } finally {
    process.umask(umask);
  }
}

async function isAnswered(path: string): Promise<boolean> {
  const socket = connect({ path });
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    if (networkCode(error) === 'ECONNREFUSED') return false;
    throw error;
  } finally {
    socket.destroy();
  }
}
