/** The commit before this one: its image, under a name of its own, and its chart. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repositoryRoot } from '../../conventions/tree.ts';
import { runTool } from '../../support/debian-system.ts';
import { nodeCache, provideCached } from './cached.ts';
import { buildProduct, productImage } from './images.ts';

export interface Previous {
  readonly archive: string;
  readonly chart: string;
  /** Of its image. */
  readonly tag: string;
}

/** Where the number of the records' layout is written. */
const layoutFiles = [
  ['src/redirect/native/nmi.h', /(#define NMI_LAYOUT )\d+/],
  ['src/redirect/ebpf/settings.ts', /(mapLayout = )\d+/],
] as const;
/** Each commit makes others. */
const unusedDays = 1;

/** @param layout another layout of the records than it has. */
export function providePrevious(tag: string, layout?: number): Previous {
  const asked = spawnSync('git', ['-C', repositoryRoot, 'rev-parse', '--verify', 'HEAD~1'], {
    encoding: 'utf8',
  });
  if (asked.status !== 0) throw new Error('this clone has no commit before its last one');
  const commit = asked.stdout.trim();
  const inputs = [commit, String(layout)];
  return {
    archive: provideCached(
      `previous-${tag}.tar`,
      inputs,
      (archive) =>
        withSources(commit, layout, (clone) => {
          buildProduct(clone, `${productImage.repository}/entra-pod-identity:${tag}`, archive);
        }),
      unusedDays,
    ),
    chart: provideCached(
      `previous-chart-${tag}`,
      inputs,
      (folder) =>
        withSources(commit, layout, (clone) => {
          cpSync(join(clone, 'deploy/chart'), folder, { recursive: true });
        }),
      unusedDays,
    ),
    tag,
  };
}

function withSources(
  commit: string,
  layout: number | undefined,
  use: (clone: string) => void,
): void {
  const clone = mkdtempSync(join(nodeCache, `.work-${process.pid}-`));
  try {
    runTool('git', 'clone', '--quiet', '--no-checkout', repositoryRoot, clone);
    runTool('git', '-C', clone, 'checkout', '--quiet', commit);
    for (const [file, pattern] of layout === undefined ? [] : layoutFiles) {
      const path = join(clone, file);
      const text = readFileSync(path, 'utf8');
      if (!pattern.test(text)) throw new Error(`${file} has no layout`);
      writeFileSync(path, text.replace(pattern, `$1${String(layout)}`));
    }
    use(clone);
  } finally {
    rmSync(clone, { recursive: true, force: true });
  }
}
