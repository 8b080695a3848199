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
  /** When it got its present path. */
  placedMs: number;
}

/** A connection to a path was tried. */
interface Look {
  readonly atMs: number;
  readonly inode: Inode | undefined;
}

/** A socket file is removed, or replaced by another one. */
export interface Removal {
  readonly path: string;
  readonly inode: Inode;
  readonly by: FileOwner;
  readonly isReplaced: boolean;
  /** The last one of that process at this path. */
  readonly look: Look | undefined;
}

export class FileTree {
  readonly #nowMs: () => number;
  readonly #inodes = new Map<string, Inode>();
  readonly #looks = new Map<string, Look>();
  #made = 0n;
  onRemoval: (removal: Removal) => void = () => undefined;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  find(path: string): Inode {
    const inode = this.#inodes.get(path);
    if (inode === undefined) throw failure('ENOENT', 'find');
    return inode;
  }

  /** As at a boot: the folder was in memory. */
  clear(path: string): void {
    this.#inodes.delete(path);
  }

  has(path: string): boolean {
    return this.#inodes.has(path);
  }

  /** Finds what to connect to. */
  look(path: string, by: FileOwner): Inode {
    const look = { atMs: this.#nowMs(), inode: this.#inodes.get(path) };
    this.#looks.set(`${by.number} ${path}`, look);
    return this.find(path);
  }

  make(path: string, owner: FileOwner, mode: number, listener?: LocalListener): void {
    if (this.#inodes.has(path)) throw failure(listener ? 'EADDRINUSE' : 'EEXIST', 'make');
    const parent = dirname(path);
    if (parent !== '/' && !this.#inodes.has(parent)) {
      // libuv reports a socket in a missing folder like this.
      throw failure(listener ? 'EACCES' : 'ENOENT', 'make');
    }
    const number = (this.#made += 1n);
    this.#inodes.set(path, { number, owner, mode, listener, placedMs: this.#nowMs() });
  }

  unlink(path: string, by: FileOwner): void {
    const inode = this.find(path);
    if (inode.listener === undefined) throw failure('EISDIR', 'unlink');
    this.#inodes.delete(path);
    this.#report(path, inode, by, false);
  }

  rename(from: string, to: string, by: FileOwner): void {
    const inode = this.find(from);
    const replaced = this.#inodes.get(to);
    this.#inodes.delete(from);
    this.#inodes.set(to, inode);
    inode.placedMs = this.#nowMs();
    if (replaced !== undefined) this.#report(to, replaced, by, true);
  }

  #report(path: string, inode: Inode, by: FileOwner, isReplaced: boolean): void {
    const look = this.#looks.get(`${by.number} ${path}`);
    this.onRemoval({ path, inode, by, isReplaced, look });
  }
}
