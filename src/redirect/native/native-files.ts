/**
 * Location of the compiled parts: inside the executable, or in the build folder if the program runs from
 * its sources or as a bundle.
 *
 * An addon can be loaded only from a file on a file system that is not mounted noexec. The executable
 * first looks beside itself, so that an image can contain the file and have a read-only root; a file that
 * differs from the embedded one is not used. Otherwise it writes the file to the first writable folder,
 * and deletes it after loading.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRawAsset, isSea } from 'node:sea';
import { fileURLToPath } from 'node:url';
import { RedirectError } from '../redirect.ts';

const addonFile = 'nmi.node';
const programsFile = 'nmi.bpf.o';
const loadStep = 'load native module';

let programs: Uint8Array | undefined;

/** The BPF programs, as an ELF file; the same bytes each time. @throws RedirectError */
export function readPrograms(): Uint8Array {
  programs ??= isSea()
    ? assetOf(programsFile)
    : takeBuilt(programsFile, (path) => readFileSync(path));
  return programs;
}

/**
 * Loads the addon and returns what it exports.
 * @throws RedirectError `UNSUPPORTED` if no folder allows loading it.
 */
export function loadAddon(): unknown {
  return isSea()
    ? (globalThis.nmiAddon ??= loadFromExecutable(assetOf(addonFile)))
    : takeBuilt(addonFile, dlopen);
}

declare global {
  /** The executable has two scripts, and the first one loads the addon for both. */
  var nmiAddon: unknown;
}

function loadFromExecutable(addon: Uint8Array): unknown {
  const beside = join(dirname(process.execPath), addonFile);
  if (isCopy(beside, addon)) return dlopen(beside);
  const refusals: string[] = [];
  for (const folder of new Set([tmpdir(), '/run', '/dev/shm'])) {
    try {
      return loadThrough(folder, addon);
    } catch (error) {
      refusals.push(`${folder}: ${error instanceof Error ? error.message : 'unknown'}`);
    }
  }
  throw new RedirectError(
    'UNSUPPORTED',
    loadStep,
    `no folder to load it from, and no copy at ${beside} (${refusals.join('; ')})`,
  );
}

/** The file is deleted after loading: the kernel keeps its mapping. */
function loadThrough(parent: string, addon: Uint8Array): unknown {
  const folder = mkdtempSync(join(parent, 'nmi-'));
  try {
    const file = join(folder, addonFile);
    writeFileSync(file, addon, { mode: 0o500 });
    return dlopen(file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function isCopy(path: string, addon: Uint8Array): boolean {
  try {
    return readFileSync(path).equals(addon);
  } catch {
    return false;
  }
}

/** Not a copy: writing to it ends the process. */
function assetOf(name: string): Uint8Array {
  return new Uint8Array(getRawAsset(name));
}

function dlopen(path: string): unknown {
  const loaded: { exports: unknown } = { exports: {} };
  process.dlopen(loaded, path, constants.dlopen.RTLD_NOW);
  return loaded.exports;
}

function buildFolder(): string {
  const here = fileURLToPath(import.meta.url);
  const fromSource = here.endsWith('/src/redirect/native/native-files.ts');
  return fromSource
    ? fileURLToPath(new URL('../../../dist/native', import.meta.url))
    : join(dirname(here), 'native');
}

function takeBuilt<T>(name: string, take: (path: string) => T): T {
  try {
    return take(join(buildFolder(), name));
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'unknown';
    const message = `the module is not built, or built for another Node: ${reason}`;
    throw new RedirectError('UNSUPPORTED', loadStep, message, error);
  }
}
