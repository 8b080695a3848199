import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runInNewContext } from 'node:vm';
import { bundlePlugin } from '../../scripts/bundle.ts';
import { renderPluginScript } from '../../scripts/plugin-script.ts';
import { repositoryRoot } from '../conventions/tree.ts';

/** On a Node of a version: what it prints, and its exit code; undefined if the script goes on. */
function runOn(version: string) {
  const printed: string[] = [];
  const exits: number[] = [];
  let hasBegun = false;
  const script = renderPluginScript('begin();').replace(/^#!.*\n/, '');
  runInNewContext(script, {
    process: {
      version: `v${version}`,
      versions: { node: version },
      execPath: '/usr/bin/node',
      exit: (code: number) => exits.push(code),
    },
    console: { error: (line: string) => printed.push(line) },
    begin: () => (hasBegun = true),
  });
  return { printed, exits, hasBegun };
}

describe('the script of the plugin', () => {
  it('names the Node that it needs and the one that runs it, in one line', () => {
    for (const version of ['18.20.8', '20.19.0', '21.9.9', '22.2.0']) {
      const { printed, exits } = runOn(version);
      assert.deepEqual(exits, [69]);
      assert.deepEqual(printed, [
        `error: kubectl nmi needs Node.js 22.3 or later, and /usr/bin/node is v${version}; put a newer node first on the PATH`,
      ]);
    }
  });

  it('goes on with any later one', () => {
    for (const version of ['22.3.0', '22.12.0', '23.0.0', '26.10.0']) {
      assert.deepEqual(runOn(version), { printed: [], exits: [], hasBegun: true });
    }
  });

  it('can be parsed where it cannot run', async () => {
    const stamp = { version: '0.0.0', commit: 'x', date: 'x' };
    const { script } = await bundlePlugin(repositoryRoot, stamp);
    // Node 18 and before know no such flag of regular expressions, and would report only that.
    assert.doesNotMatch(script, /\/[dgimsuy]*v[dgimsuy]*\.(?:test|exec)\(/);
    assert.match(script, /new RegExp\([^\n]*"v"\)/);
  });
});
