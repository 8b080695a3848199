/**
 * Requirements of package.json: exact versions, and a line in CONTRIBUTING.md for every package.
 */

const sections = ['dependencies', 'devDependencies', 'optionalDependencies'] as const;

/** Packages with a range, a tag or a location as version. */
export function checkVersions(packageJson: string): readonly string[] {
  return packagesOf(packageJson)
    .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
    .map(([name, version]) => `${name} is not pinned: ${version}`);
}

/** Packages without a line of their own (a list item or a table row) under a heading `Packages`. */
export function checkReasons(packageJson: string, page: string | undefined): readonly string[] {
  if (page === undefined) return ['CONTRIBUTING.md is missing'];
  const lines = packageLines(page);
  if (lines === undefined) return ['CONTRIBUTING.md has no heading "Packages"'];
  return packagesOf(packageJson)
    .filter(([name]) => !lines.some((line) => line.includes(`\`${name}\``)))
    .map(([name]) => `CONTRIBUTING.md has no line for \`${name}\` under "Packages"`);
}

function packageLines(page: string): readonly string[] | undefined {
  const lines = page.split('\n');
  const start = lines.findIndex((line) => /^#+\s+Packages\s*$/.test(line));
  if (start < 0) return undefined;
  const after = lines.slice(start + 1);
  const end = after.findIndex((line) => /^#+\s/.test(line));
  return after.slice(0, end < 0 ? undefined : end).filter((line) => /^\s*[-*|]/.test(line));
}

function packagesOf(packageJson: string): readonly (readonly [name: string, version: string])[] {
  const parsed = JSON.parse(packageJson) as Partial<
    Record<(typeof sections)[number], Readonly<Record<string, string>>>
  >;
  return sections.flatMap((section) => Object.entries(parsed[section] ?? {}));
}
