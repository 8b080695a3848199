import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { exitCodes } from '../../../src/kubectl/base/io.ts';
import { play } from '../support/recorded-kubectl.ts';

describe('the exit codes of the plugin', () => {
  it('are those that its help names, and 70 for a bug', async () => {
    const { bug, ...others } = exitCodes;
    assert.equal(bug, 70);
    const { stdout } = await play(['--help']);
    const [, list = ''] = /Exit codes: ([^.]+)\./.exec(stdout.replaceAll(/\s+/g, ' ')) ?? [];
    assert.deepEqual(
      list.split(', ').map((each) => Number(each.split(' ')[0])),
      Object.values(others),
    );
    assert.equal(exitCodes.ok, 0);
  });
});
