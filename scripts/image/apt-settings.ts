/** This machine's sources of Debian packages, for systems that are built on it. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** The output of a tool; empty if it is not installed. */
function output(tool: string, ...args: readonly string[]): string {
  return spawnSync(tool, args, { encoding: 'utf8' }).stdout ?? '';
}

/** Lines of sources.list for a release, from this machine's mirrors; none if it is not Debian. */
export function sourcesOf(release: string): readonly string[] {
  const [, ours = ''] =
    /^VERSION_CODENAME=(.+)$/m.exec(readFileSync('/etc/os-release', 'utf8')) ?? [];
  const format = 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)';
  const targets = ['Identifier: Packages', 'Origin: Debian', 'Component: main'];
  return output('apt-get', 'indextargets', '--format', format, ...targets)
    .split('\n')
    .filter((line) => line.split(' ')[2]?.startsWith(ours) === true)
    .map((line) => line.replace(` ${ours}`, ` ${release}`));
}

/** This machine's proxies, certificates, and whether it accepts old indexes, as lines of apt.conf. */
export function aptOptions(): readonly string[] {
  return output('apt-config', 'dump', 'Acquire')
    .split('\n')
    .filter((line) => /^Acquire::(?:Check-|https?::).* ".+";$/.test(line));
}
