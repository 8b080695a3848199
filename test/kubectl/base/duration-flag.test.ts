import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createPod,
  boundTestBed,
  createAgentPod,
  nowWallMs,
  ok,
  play,
} from '../support/recorded-kubectl.ts';

const name = `nmi-test-${nowWallMs.toString(36)}`;

/** Seconds that `test` waits for a pod that never starts: it looks once a second. */
async function waitOf(timeout: readonly string[]) {
  let looks = 0;
  const status = { phase: 'Pending' };
  const pods = [createPod('web'), createAgentPod('node-1'), createPod(name, { status })];
  const { code, stderr, inputs } = await play(['test', '--pod', 'web', ...timeout], {
    ...boundTestBed({ pods }),
    other: () => ok(''),
    onSleep: () => (looks += 1),
  });
  const deadline = Number(/activeDeadlineSeconds: (\d+)/.exec(inputs[0] ?? '')?.[1]);
  return { code, stderr, looks, deadline };
}

describe('a flag that is a duration', () => {
  it('is written as in kubectl, or in seconds', async () => {
    const waits = [
      [['--timeout', '2m'], 120],
      [['--timeout=90s'], 90],
      [['--timeout', '1m30s'], 90],
      [['--timeout', '5'], 5],
      [[], 120],
    ] as const;
    for (const [words, seconds] of waits) {
      const { looks, deadline } = await waitOf(words);
      assert.deepEqual([looks, deadline], [seconds, seconds], words.join(' '));
    }
  });

  it('is anything else by mistake', async () => {
    for (const text of ['2 minutes', 'm', '-1s', '1d', '2M', '1e3', '90,5s', 'Infinity']) {
      const { code, stderr, looks } = await waitOf([`--timeout=${text}`]);
      assert.deepEqual([code, looks], [2, 0], text);
      assert.equal(
        stderr,
        `error: --timeout is "${text}", which is no duration\nWrite it as 90s, 2m or 1m30s; a number alone is seconds.\n`,
      );
    }
    assert.equal((await waitOf(['--timeout', '1', '--timeout', '2'])).code, 2);
    assert.equal((await waitOf(['--timeout'])).code, 2);
    assert.equal((await waitOf(['--timeout='])).code, 2);
  });
});
