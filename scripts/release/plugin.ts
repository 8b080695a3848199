/**
 * The plugin of kubectl as a release has it: archives with the script and with an executable for each
 * processor, and the manifest by which krew installs the script.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { buildStamp, makePlugin, repositoryRoot, type BuildTarget } from '../build.ts';
import { packPlain } from '../image/tar.ts';
import { noticesFile, renderNotices } from '../notices.ts';
import { embedPlugin } from '../plugin-executable.ts';

export interface PluginRequest {
  readonly results: string;
  readonly work: string;
  /** Seconds since 1970, for every file. */
  readonly epoch: number;
  /** The https address of the folder that has the results, without a slash at its end. */
  readonly place: string;
}

/** @throws Error for an address from which krew cannot fetch. */
export function mustBePlace(place: string): void {
  if (/^https:\/\/[^\s?#]+[^/\s?#]$/.test(place)) return;
  throw new Error(
    `${JSON.stringify(place)} is no https URL of a folder without a slash at its end, where the files of the release will be`,
  );
}

/** @param target its notices name Node's license and those of linked libraries too. */
export async function packPlugin(
  request: PluginRequest,
  target: BuildTarget,
  executables: readonly (BuildTarget & { readonly architecture: string })[],
): Promise<void> {
  const { results, work, epoch, place } = request;
  const made = mkdtempSync(join(work, 'plugin-'));
  const stamp = buildStamp(String(epoch));
  const modules = await makePlugin(made, stamp);
  const archive = `kubectl-nmi-v${stamp.version}.tar.gz`;
  const packWith = (name: string, notices: BuildTarget): void => {
    writeFileSync(join(made, noticesFile), renderNotices(repositoryRoot, modules, notices));
    packFiles(made, join(results, name), epoch);
  };
  packWith(archive, target);
  const manifest = renderManifest(`v${stamp.version}`, join(results, archive), place);
  writeFileSync(join(results, `kubectl-nmi-v${stamp.version}.krew.yaml`), manifest);
  const script = join(made, 'kubectl-nmi.cjs');
  renameSync(join(made, 'kubectl-nmi'), script);
  for (const each of executables) {
    embedPlugin(script, each.node, join(made, 'kubectl-nmi'));
    packWith(`kubectl-nmi-v${stamp.version}-linux-${each.architecture}.tar.gz`, each);
  }
}

function packFiles(made: string, archive: string, epoch: number): void {
  const folder = join(made, 'packed');
  mkdirSync(folder);
  for (const name of ['kubectl-nmi', 'kubectl_complete-nmi', noticesFile]) {
    copyFileSync(join(made, name), join(folder, name));
  }
  copyFileSync(join(repositoryRoot, 'LICENSE'), join(folder, 'LICENSE'));
  packPlain(folder, '.', archive, epoch);
  rmSync(folder, { recursive: true });
}

function renderManifest(version: string, archive: string, place: string): string {
  const digest = createHash('sha256').update(readFileSync(archive)).digest('hex');
  return readFileSync(join(repositoryRoot, 'deploy/krew/nmi.yaml'), 'utf8')
    .replace(/^#.*\n/, '')
    .replace('version: VERSION', `version: ${version}`)
    .replace('uri: URI', `uri: ${place}/kubectl-nmi-${version}.tar.gz`)
    .replace('sha256: SHA256', `sha256: ${digest}`);
}
