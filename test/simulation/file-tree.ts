/** Folders and the files of Unix sockets of a simulated machine. */
import { dirname } from 'node:path';
import type { LocalListener } from './local-sockets.ts';
import { failure } from './open-file.ts';

interface FileOwner {
  readonly number: number;
  readonly name: string;
}

interface Inode {
  readonly number: bigint;
  /** What made it. */
  readonly owner: FileOwner;
  readonly mode: number;
  /** Undefined for a folder. */
  readonly listener: LocalListener | undefined;
}

export class FileTree {
  readonly #inodes = new Map<string, Inode>();
  #made = 0n;

  find(path: string): Inode {
    const inode = this.#inodes.get(path);
    if (inode === undefined) throw failure('ENOENT', 'find');
    return inode;
  }

  has(path: string): boolean {
    return this.#inodes.has(path);
  }

  make(path: string, owner: FileOwner, mode: number, listener?: LocalListener): void {
    if (this.#inodes.has(path)) throw failure(listener ? 'EADDRINUSE' : 'EEXIST', 'make');
    const parent = dirname(path);
    if (parent !== '/' && !this.#inodes.has(parent)) {
      // libuv reports a socket in a missing folder like this.
      throw failure(listener ? 'EACCES' : 'ENOENT', 'make');
    }
    const number = (this.#made += 1n);
    this.#inodes.set(path, { number, owner, mode, listener });
  }

  unlink(path: string): void {
    const inode = this.find(path);
    if (inode.listener === undefined) throw failure('EISDIR', 'unlink');
    this.#inodes.delete(path);
  }

  rename(from: string, to: string): void {
    const inode = this.find(from);
    this.#inodes.delete(from);
    this.#inodes.set(to, inode);
  }
}
