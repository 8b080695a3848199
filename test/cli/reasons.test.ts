import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { reasons } from '../../src/cli/reasons.ts';
import { refusals } from '../../src/nmi/base/answers.ts';

function run(...rest: string[]) {
  let stdout = '';
  let stderr = '';
  const code = reasons(
    { flags: {}, rest },
    {
      environment: {},
      stdout: (text) => (stdout += text),
      stderr: (text) => (stderr += text),
      stop: AbortSignal.abort(),
    },
  );
  return { code, stdout, stderr };
}

describe('nmi reasons', () => {
  it('lists every reason of a refusal, with its status', () => {
    const { code, stdout } = run();
    assert.equal(code, 0);
    for (const [reason, { status }] of Object.entries(refusals)) {
      assert.match(stdout, new RegExp(`^${reason} +${status}  [A-Z]`, 'm'));
    }
    const columns = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.search(/ \d{3} {2}/));
    assert.equal(new Set(columns).size, 1, 'statuses are below each other');
  });

  it('prints for one its meaning, how to check it and how to fix it', () => {
    const { code, stdout } = run('binding_missing');
    assert.equal(code, 0);
    assert.match(stdout, /^binding_missing \(HTTP 400\)\n[A-Z].*\nCheck: .*\nFix: .*\n$/);
  });

  it('refuses an unknown reason, and suggests a similar one', () => {
    const { code, stdout, stderr } = run('bindingmissing');
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /unknown reason "bindingmissing"; did you mean "binding_missing"\?/);
    assert.equal(run('constructor').code, 2);
    assert.equal(run('zzzz').stderr, 'nmi reasons: unknown reason "zzzz"\n');
  });
});
