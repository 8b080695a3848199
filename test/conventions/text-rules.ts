/** Texts that no committed file may reveal or depend on, and what no linter here says. */
import { readSyntax } from './syntax.ts';
import { typescriptIn, type SourceFile } from './tree.ts';

/** Home folders that exist on other machines too: the users of container images. */
const homeOfSomebody =
  /(?:\/home\/(?!nonroot\b)[a-z][\w.-]*|\/Users\/[A-Za-z][\w.-]*|\/root)\/[\w.]/;

/** Hosts of package registries; each client has its own default. */
const registryHosts = [
  /\bregistry\.npmjs\.org\b/,
  /\bregistry\.yarnpkg\.com\b/,
  /\bdeb\.debian\.org\b/,
  /\bsecurity\.debian\.org\b/,
  /\bpypi\.org\b/,
  /\bpythonhosted\.org\b/,
  /\bcrates\.io\b/,
  /\bproxy\.golang\.org\b/,
  /\brepo\d*\.maven\.(?:apache\.)?org\b/,
];

/**
 * Absolute paths of one developer's machine: home folders, and the parent folder of this repository
 * and its neighbours.
 */
export function checkMachinePaths(
  files: readonly SourceFile[],
  repositoryRoot: string,
): readonly string[] {
  return eachLine(files, (line) => {
    if (line.includes(`${repositoryRoot}/`)) return 'names the folder of this clone';
    return homeOfSomebody.test(line) ? 'names a home folder' : undefined;
  });
}

/** Hosts of package registries, and lock file entries that name where a package was fetched. */
export function checkRegistryHosts(files: readonly SourceFile[]): readonly string[] {
  return eachLine(files, (line, path) => {
    if (registryHosts.some((host) => host.test(line))) return 'names the host of a registry';
    return path.endsWith('package-lock.json') && line.includes('"resolved"')
      ? 'names where a package was fetched'
      : undefined;
  });
}

/**
 * Regular expressions of the product that take quadratic time in the length of the text, or worse:
 * one that may begin anywhere and runs to the end (`/\\/+$/`), or a repetition of repetitions.
 * Users of a namespace write those texts.
 */
export function checkPatterns(files: readonly SourceFile[]): readonly string[] {
  return typescriptIn(files, 'src').flatMap((file) =>
    readSyntax(file)
      .patterns.filter(isSlow)
      .map((pattern) => `${file.path} backtracks: /${pattern}/`),
  );
}

function isSlow(pattern: string): boolean {
  // Character classes repeat nothing by themselves.
  const bare = pattern.replaceAll(/\\./g, 'x').replaceAll(/\[[^\]]*\]/g, 'x');
  const runsToTheEnd = !/^(?:\^|\(\?<)/.test(bare) && /[+*]\)?\$$/.test(bare);
  return runsToTheEnd || /\((?:\?:)?x[+*]\)[+*]/.test(bare);
}

/** Packages of a package.json with a range, a tag or a location as version. */
export function checkVersions(packageJson: string): readonly string[] {
  const parsed = JSON.parse(packageJson) as Readonly<
    Record<string, Readonly<Record<string, string>>>
  >;
  return ['dependencies', 'devDependencies', 'optionalDependencies']
    .flatMap((section) => Object.entries(parsed[section] ?? {}))
    .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
    .map(([name, version]) => `${name} is not pinned: ${version}`);
}

function eachLine(
  files: readonly SourceFile[],
  check: (line: string, path: string) => string | undefined,
): readonly string[] {
  return files.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      const problem = check(line, path);
      return problem === undefined ? [] : [`${path}:${index + 1} ${problem}`];
    }),
  );
}
