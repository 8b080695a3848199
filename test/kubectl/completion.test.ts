import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  boundTestBed,
  createPod,
  failed,
  play,
  type Recorded,
} from './support/recorded-kubectl.ts';

const named = (name: string) => ({ kind: 'Namespace', metadata: { name } });
const testBed: Recorded = {
  ...boundTestBed({
    namespaces: [named('shop'), named('stock'), named('other')],
    pods: [createPod('web-1'), createPod('web-2'), createPod('far', { namespace: 'other' })],
  }),
};

async function complete(...words: readonly string[]): Promise<readonly string[]> {
  const { code, stdout, stderr } = await play(['__complete', ...words], testBed);
  assert.deepEqual([code, stderr], [0, '']);
  const lines = stdout.trimEnd().split('\n');
  assert.match(lines.at(-1) ?? '', /^:[04]$/);
  return lines.slice(0, -1);
}

describe('completion', () => {
  it('knows verbs, and verbs of verbs', async () => {
    assert.deepEqual(await complete('expl'), ['explain']);
    assert.ok((await complete('')).includes('doctor'));
    assert.deepEqual(await complete('identity', 'fe'), ['federate']);
    assert.deepEqual(await complete('identity', 'a'), ['add', 'assign']);
    assert.ok((await complete('help', 'ex')).includes('explain'));
  });

  it('knows flags of the verb, and those of every verb', async () => {
    assert.deepEqual(await complete('doctor', '--pr'), ['--pre']);
    assert.deepEqual(await complete('identity', 'assign', 'orders', '--sel'), ['--selector']);
    assert.deepEqual(await complete('explain', 'pod', 'web', '--name'), ['--namespace']);
    assert.deepEqual(await complete('explain', 'pod', '--res'), ['--resource']);
    const all = await complete('doctor', '--');
    for (const flag of ['--pre', '--context', '--output']) assert.ok(all.includes(flag), flag);
    assert.ok(!all.includes('--selector'));
    assert.deepEqual(await complete('identity', 'list', '--all'), ['--all-namespaces']);
    assert.deepEqual(await complete('test', '--pod', 'web', '--all'), [], 'of one namespace');
    assert.deepEqual(await complete('grants', '--out'), [], 'YAML alone');
  });

  it('knows the choices of flags and arguments', async () => {
    assert.deepEqual(await complete('doctor', '-o', 'y'), ['yaml']);
    assert.deepEqual(await complete('doctor', '--output', ''), ['text', 'json', 'yaml']);
    assert.deepEqual(await complete('analyze', '--threshold', 'e'), ['error']);
    assert.deepEqual(await complete('analyze', '--threshold=e'), ['error']);
    assert.deepEqual(await complete('explain', ''), ['pod', 'ip']);
    assert.deepEqual(await complete('reasons', 'binding_m'), ['binding_missing']);
  });

  it('knows namespaces and contexts', async () => {
    assert.deepEqual(await complete('explain', '-n', 'sh'), ['shop']);
    assert.deepEqual(await complete('doctor', '--namespace', 's'), ['shop', 'stock']);
    assert.deepEqual(await complete('doctor', '--namespace=st'), ['stock']);
    assert.deepEqual(await complete('doctor', '--context', 'p'), ['prod']);
  });

  it('knows the names of pods and of our objects, in the namespace that is typed', async () => {
    assert.deepEqual(await complete('explain', 'pod', ''), ['web-1', 'web-2']);
    assert.deepEqual(await complete('explain', '-n', 'other', 'pod', ''), ['far']);
    assert.deepEqual(await complete('explain', '--namespace=other', 'pod', 'f'), ['far']);
    assert.deepEqual(await complete('test', '--pod=web'), ['web-1', 'web-2']);
    assert.deepEqual(await complete('test', '-n', 'other', '--pod=f'), ['far']);
    assert.deepEqual(await complete('test', '--pod', 'web'), ['web-1', 'web-2']);
    assert.deepEqual(await complete('identity', 'assign', 'or'), ['orders']);
    assert.deepEqual(await complete('identity', 'add', ''), [], 'a new name');
    assert.deepEqual(await complete('identity', 'assign', 'orders', ''), [], 'one name');
  });

  it('leaves files to the shell', async () => {
    const { stdout } = await play(['__complete', 'analyze', '-f', 'a'], testBed);
    assert.equal(stdout, ':0\n');
  });

  it('is silent and quick where the server does not answer', async () => {
    const calls: (readonly string[])[] = [];
    const { code, stdout, stderr } = await play(['__complete', 'doctor', '-n', ''], {
      forbidden: { namespaces: 'everywhere' },
      other: (_program, args) => {
        calls.push(args);
        return failed('error: x');
      },
    });
    assert.deepEqual([code, stdout, stderr], [0, ':4\n', '']);
  });
});
