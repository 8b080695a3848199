/**
 * File systems that a test cannot create or break for real: `node:fs` with some functions replaced.
 */
import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Also applies to modules that imported the functions by name; until disposed. */
export function replaceFs(replaced: Partial<typeof fs>): Disposable {
  const names = Object.keys(replaced) as (keyof typeof fs)[];
  const former = Object.fromEntries(names.map((name) => [name, fs[name]]));
  Object.assign(fs, replaced);
  syncBuiltinESMExports();
  return {
    [Symbol.dispose]: () => {
      Object.assign(fs, former);
      syncBuiltinESMExports();
    },
  };
}

/** An error as the kernel returns it. */
export function refusal(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: refused`), { code });
}

export interface PretendedFileSystem extends Disposable {
  readonly path: string;
}

/** By the type number that `statfs` reports. */
const types = { bpf: 0xcafe4a11, cgroup2: 0x63677270 } as const;

/** A new folder. `statfs` reports this type for it and everything below; disposal removes it. */
export function pretendFileSystem(type: keyof typeof types): PretendedFileSystem {
  const path = mkdtempSync(join(tmpdir(), 'nmi-pretended-'));
  const { statfsSync } = fs;
  const pretended = replaceFs({
    statfsSync: ((asked: string) => {
      const real = statfsSync(asked);
      return asked.startsWith(path) ? Object.assign(real, { type: types[type] }) : real;
    }) as typeof statfsSync,
  });
  return {
    path,
    [Symbol.dispose]: () => {
      pretended[Symbol.dispose]();
      rmSync(path, { recursive: true, force: true });
    },
  };
}
