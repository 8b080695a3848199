/** Texts that no committed file may reveal or depend on. */
import type { SourceFile } from './tree.ts';

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
