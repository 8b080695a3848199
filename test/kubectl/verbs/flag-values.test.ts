/** A flag whose value is lost would change another cluster, namespace or user than the one typed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, play } from '../support/recorded-kubectl.ts';

const assign = ['identity', 'assign', 'orders', '--apply'];

async function refusalOf(words: readonly string[]): Promise<string> {
  const { code, stderr, stdout, calls } = await play(words, boundTestBed());
  assert.equal(code, 2, `${words.join(' ')}: ${stdout}${stderr}`);
  assert.deepEqual([stdout, calls], ['', []]);
  return stderr;
}

describe('the value of a flag', () => {
  it('is given once, whichever way the flag is written', async () => {
    const connection = ['context', 'cluster', 'user', 'kubeconfig', 'as', 'request-timeout'];
    for (const name of [...connection, 'namespace', 'agent-namespace']) {
      const said = await refusalOf([...assign, `--${name}=a`, `--${name}`, 'b']);
      assert.equal(said, `error: --${name} is given 2 times, and has one value\nGive it once.\n`);
    }
    assert.match(await refusalOf([...assign, '-n', 'a', '-n', 'b']), /^error: -n is given 2 times/);
    assert.match(await refusalOf([...assign, '-n', 'a', '--namespace=b']), /is given 2 times/);
    assert.match(
      await refusalOf(['doctor', '-o', 'json', '-o', 'yaml']),
      /^error: -o is given 2 times/,
    );
    assert.match(await refusalOf(['-n', 'a', ...assign, '-n', 'a']), /is given 2 times/);
    const selector = ['identity', 'assign', 'orders', '--selector', 'a', '--selector', 'b'];
    assert.match(await refusalOf(selector), /^error: --selector is given 2 times/);
    const account = ['identity', 'assign', 'orders', '--service-account=a', '--service-account=b'];
    assert.match(await refusalOf(account), /^error: --service-account is given 2 times/);
    const timeout = ['test', '--pod', 'web', '--timeout', '1', '--timeout', '2'];
    assert.match(await refusalOf(timeout), /--timeout/);
  });

  it('is not empty, and not left out', async () => {
    for (const name of ['context', 'as', 'namespace']) {
      const said = new RegExp(`^error: --${name} has no value\nGive one, or leave it out\\.\n$`);
      assert.match(await refusalOf([...assign, `--${name}=`]), said);
      assert.match(await refusalOf([...assign, `--${name}`]), said);
      assert.match(await refusalOf([...assign, `--${name}`, '']), said);
    }
    assert.match(await refusalOf([...assign, '-n']), /^error: -n has no value/);
    assert.match(await refusalOf([...assign, '-n', '--context', 'a']), /^error: -n has no value/);
    assert.match(await refusalOf([...assign, '-n=']), /^error: the word = has no meaning here/);
    for (const flag of ['-o', '--agent-namespace']) {
      assert.match(await refusalOf(['doctor', flag]), /^error: --?\S+ has no value/);
    }
    assert.match(await refusalOf(['doctor', '--agent-namespace=']), /has no value/);
    for (const flag of ['--service-account', '--service-account=', '--selector=']) {
      assert.match(await refusalOf(['identity', 'assign', 'orders', flag]), /has no value/);
    }
    assert.match(await refusalOf(['analyze', '-f']), /has no value/);
    assert.match(await refusalOf(['doctor', '--pre=']), /^error: --pre has no value/);
  });

  it('cannot be taken away by another spelling of the flag', async () => {
    for (const flag of ['--no-context', '--no-as', '--context.a=b', '--as.a=b']) {
      assert.match(await refusalOf([...assign, flag]), /unknown flag/);
    }
  });

  it('may be given again where a flag takes several', async () => {
    const federate = [
      'identity',
      'federate',
      'orders',
      '--service-account=a',
      '--service-account=b',
    ];
    assert.doesNotMatch((await play(federate, boundTestBed())).stderr, /times/);
    const analyze = ['analyze', '-f', 'a.yaml', '-f', 'b.yaml'];
    const pod = 'kind: Pod\nmetadata: { name: web }';
    const files = { 'a.yaml': pod, 'b.yaml': pod };
    assert.equal((await play(analyze, { files })).code, 0);
  });
});
