/** The kubectl plugin as the one script that users install. */

/** Of Node.js: the oldest one with `process.getBuiltinModule` and what else the script uses. */
export const oldestNode = '22.3';

/** Also understood by a Node that is too old; the script behind it is compiled so that one can read it. */
const guard = `(function () {
  var have = process.versions.node.split('.').map(Number), need = [${oldestNode.replace('.', ', ')}];
  if (have[0] > need[0] || (have[0] === need[0] && have[1] >= need[1])) return;
  console.error('error: kubectl nmi needs Node.js ${oldestNode} or later, and ' + process.execPath + ' is ' + process.version + '; install the executable kubectl-nmi-linux-ARCH of the release or of ./dev build in its place, which needs none, or put a newer node first on the PATH');
  process.exit(69);
})();
`;

export function renderPluginScript(bundle: string): string {
  return `#!/usr/bin/env node\n${guard}${bundle}`;
}
