/** Listens on a Unix socket. Its file may be left over from a killed process. */
import { once } from 'node:events';
import { lstat, mkdir, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { networkCode } from '../../base/network-code.ts';

/**
 * Listens at a path in a folder of this user alone, and replaces a socket there, which a killed process left.
 * @param mode file mode of the socket.
 * @returns why it cannot listen, or undefined. Throws failures of any other kind.
 */
export async function listenAt(
  server: Server,
  path: string,
  mode: number,
): Promise<string | undefined> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket() === false) return 'something that is no socket is there';
  if (found !== undefined && (await isAnswered(path))) return 'another process answers there';
  if (found !== undefined) await unlink(path);
  listenNow(server, path, mode);
  await once(server, 'listening');
  return undefined;
}

/** The code of a failed system call, or a reason in words; undefined when the work succeeded. */
export async function whyNot(
  work: () => Promise<string | undefined | void>,
): Promise<string | undefined> {
  try {
    return (await work()) ?? undefined;
  } catch (error) {
    return networkCode(error);
  }
}

/**
 * Makes a folder for sockets of this user: another one could put its own there, which would answer
 * instead, or receive the connections of pods.
 * @returns why the folder must not be used, or undefined. Throws failures of any other kind.
 */
export async function makeOwnFolder(path: string): Promise<string | undefined> {
  try {
    // Creates no parent folders: below /proc, Node 26 retries that forever.
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (networkCode(error) !== 'EEXIST') throw error;
  }
  const { uid, mode } = await lstat(path);
  const isOwn = uid === process.geteuid?.() && (mode & 0o022) === 0;
  return isOwn ? undefined : `${path} is no folder that this user alone can write to`;
}

/**
 * Sets the mode by umask and not by chmod(2) afterwards, which follows the path: another user of the
 * folder could replace the socket by a link in between. Node binds before `listen` returns.
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
