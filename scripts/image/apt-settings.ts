/** Sources of Debian packages for systems that are built here: this machine's, and the archive of snapshots. */
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

/** Lines of sources.list for a release as it was at a time, for example 20261129T000000Z. */
export function snapshotSources(release: string, time: string): readonly string[] {
  const archive = 'https://snapshot.debian.org/archive';
  return [
    `deb ${archive}/debian/${time}/ ${release} main`,
    `deb ${archive}/debian/${time}/ ${release}-updates main`,
    `deb ${archive}/debian-security/${time}/ ${release}-security main`,
  ];
}

/** This machine's proxies, certificates, and whether it accepts old indexes, as lines of apt.conf. */
export function aptOptions(): readonly string[] {
  return output('apt-config', 'dump', 'Acquire')
    .split('\n')
    .filter((line) => /^Acquire::(?:Check-|https?::).* ".+";$/.test(line));
}
