import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { complete, completionScript } from '../../src/cli/completion.ts';

describe('completion', () => {
  for (const [args, expected] of [
    [
      [''],
      [
        'completion',
        'conditions',
        'demo',
        'explain',
        'help',
        'ready',
        'reasons',
        'redirect',
        'run',
        'version',
      ],
    ],
    [['red'], ['redirect']],
    [['help', 'e'], ['explain']],
    [
      ['redirect', ''],
      ['install', 'probe', 'remove', 'run', 'verify'],
    ],
    [['redirect', 'verify', ''], []],
    [['explain', '--p'], ['--pod']],
    [['--metadata-g'], ['--metadata-guard']],
    [['--enable-conntrack'], []],
  ] as const) {
    it(`of "nmi ${args.join(' ')}"`, () => {
      assert.deepEqual(complete(args), expected);
    });
  }

  it('is called by a script that bash accepts', () => {
    const script = `${completionScript}
      nmi() { printf '%s\\n' "$*"; }
      COMP_WORDS=(nmi redirect ver behind) COMP_CWORD=2
      _nmi_complete
      printf '%s' "\${COMPREPLY[*]}"`;
    const asked = execFileSync('bash', ['-c', script], { encoding: 'utf8' });
    assert.equal(asked, '--complete redirect ver');
  });
});
