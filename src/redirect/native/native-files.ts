/**
 * Where the compiled parts are: inside the executable, or in the build folder for a program that
 * runs from its sources or as a bundle.
 *
 * An addon can only be loaded from a file, and from no file system that is mounted noexec. The
 * executable looks beside itself first, so that an image can carry the file and the root may be
 * read-only; a copy that differs from the one inside is not used. Else it writes one to the first
 * folder that takes it, for the moment of loading.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRawAsset, isSea } from 'node:sea';
import { fileURLToPath } from 'node:url';
import { RedirectError } from '../redirect.ts';

const ADDON = 'nmi.node';
const PROGRAMS = 'nmi.bpf.o';
const STEP = 'load native module';

/** The BPF programs, as an ELF file. @throws RedirectError */
export function readPrograms(): Uint8Array {
  if (isSea()) return assetOf(PROGRAMS);
  try {
    return readFileSync(join(buildFolder(), PROGRAMS));
  } catch (error) {
    throw notBuilt(error);
  }
}

/**
 * Loads the addon and returns what it exports.
 * @throws RedirectError `UNSUPPORTED` when there is no place to load it from.
 */
export function loadAddon(): unknown {
  if (isSea()) return loadFromExecutable(assetOf(ADDON));
  try {
    return dlopen(join(buildFolder(), ADDON));
  } catch (error) {
    throw notBuilt(error);
  }
}

function loadFromExecutable(addon: Uint8Array): unknown {
  const beside = join(dirname(process.execPath), ADDON);
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
    STEP,
    `no folder to load it from, and no copy at ${beside} (${refusals.join('; ')})`,
  );
}

/** Once it is loaded the file may go: the kernel keeps what is mapped. */
function loadThrough(parent: string, addon: Uint8Array): unknown {
  const folder = mkdtempSync(join(parent, 'nmi-'));
  try {
    const file = join(folder, ADDON);
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

/** A copy: the asset itself lies in a part of the executable that must not be written to. */
function assetOf(name: string): Uint8Array {
  return new Uint8Array(getRawAsset(name)).slice();
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

function notBuilt(cause: unknown): RedirectError {
  const reason = cause instanceof Error ? cause.message : 'unknown';
  return new RedirectError('UNSUPPORTED', STEP, `not built, or for another Node: ${reason}`, cause);
}
