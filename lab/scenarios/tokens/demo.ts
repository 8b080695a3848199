/** The sample client of the replaced system, run inside a pod as its own program. */
import assert from 'node:assert/strict';
import { assertUpstream } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { RunResult, TestBed } from '../../test-bed/test-bed.ts';

const endpoint = 'http://169.254.169.254/metadata/identity/oauth2/token';

const demoPod: Scenario = {
  name: 'demo-pod',
  title:
    'The sample client succeeds in a bound pod, and fails with a clear error in one without an identity.',
  needs: 'namespaces',
  inTour: true,
  run: async (testBed) => {
    const { clientId } = testBed.bind('demo', 'demo');
    await testBed.addPod({ name: 'demo', binding: 'demo' });
    await testBed.addPod({ name: 'demo-unbound' });
    await testBed.untilAgentKnows();
    const good = await runDemo(testBed, 'demo', clientId);
    assertTokenless(testBed, good);
    assert.equal(good.code, 0, good.stderr);
    assert.deepEqual(good.stdout.trimEnd().split('\n').toSorted(), [
      `successfully acquired a token using the MSI, msiEndpoint(${endpoint})`,
      `successfully acquired a token, userAssignedID MSI, msiEndpoint(${endpoint}) clientID(${clientId})`,
      'successfully made GET on instance metadata',
    ]);
    assert.equal(good.stderr, '');

    const bad = await runDemo(testBed, 'demo-unbound', clientId);
    assertTokenless(testBed, bad);
    assert.equal(bad.code, 1, bad.stdout);
    assert.equal(bad.stdout, 'successfully made GET on instance metadata\n');
    const failures = bad.stderr.trimEnd().split('\n');
    assert.equal(failures.length, 2, bad.stderr);
    for (const line of failures) {
      assert.match(
        line,
        /^failed to acquire a token.*Identity not found: pod default\/demo-unbound /,
      );
    }
    assertUpstream(testBed, ['demo']);
    return 'three success lines in the bound pod, exit code 1 and the reason in the other';
  },
};

/** Must run first: the messages of other asserts contain the program's output. */
function assertTokenless(testBed: TestBed, { stdout, stderr }: RunResult): void {
  for (const token of testBed.imds.issuedTokens()) {
    const [, payload = token, signature = token] = token.split('.');
    const isPrinted = [payload, signature].some((part) => `${stdout}${stderr}`.includes(part));
    assert.ok(!isPrinted, 'the sample client printed a token');
  }
}

async function runDemo(testBed: TestBed, pod: string, clientId: string): Promise<RunResult> {
  const [program, ...leading] = testBed.environment.agentCommand;
  const words = [...leading, 'demo', '--once', '--outside-pod', `--clientid=${clientId}`];
  const result = await testBed.environment.runInPod(pod, program, words);
  for (const line of `${result.stdout}${result.stderr}`.trimEnd().split('\n')) {
    testBed.log(`pod ${pod}: ${line}`);
  }
  return result;
}

export const demoScenarios: readonly Scenario[] = [demoPod];
