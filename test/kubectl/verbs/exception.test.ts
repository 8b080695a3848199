import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { metadataOf } from '../../../src/kubectl/base/object.ts';
import {
  boundTestBed,
  createObject,
  createPod,
  kinds,
  ok,
  play,
} from '../support/recorded-kubectl.ts';

const made = createObject('AzurePodIdentityException', 'proxy', { podLabels: { app: 'proxy' } });
const proxy = { ...made, metadata: { ...metadataOf(made), resourceVersion: '7' } };
const testBed = {
  ...boundTestBed({
    pods: [createPod('p', { labels: { app: 'PROXY' } }), createPod('web')],
    [kinds.exceptions]: [proxy],
  }),
  other: () => ok('done\n'),
};

describe('kubectl nmi exception', () => {
  it('adds a missing one, and updates an existing one', async () => {
    const added = await play(
      ['exception', 'add', 'new', '--pod-labels', 'app=proxy, tier=y'],
      testBed,
    );
    assert.match(
      added.stdout,
      /kind: AzurePodIdentityException[^]*podLabels:\n {4}app: proxy\n {4}tier: "y"\n# Pods with one of these labels \(now 1 of 2 in namespace shop\) get every identity/,
    );
    assert.match(
      (await play(['exception', 'add', 'proxy', '--pod-labels', 'a=b'], testBed)).stderr,
      /exists; its spec\.podLabels is \{"app":"proxy"\}, .*\nUse: kubectl nmi exception update proxy --pod-labels a=b -n shop/,
    );
    assert.match(
      (await play(['exception', 'update', 'new', '--pod-labels', 'a=b'], testBed)).stderr,
      /does not exist\nUse: kubectl nmi exception add/,
    );
    const { calls } = await play(
      ['exception', 'update', 'proxy', '--pod-labels', 'a=b', '--apply'],
      testBed,
    );
    assert.deepEqual(
      calls.map((words) => words.filter((word) => !word.startsWith('--request-timeout'))),
      [
        [
          ...['kubectl', 'patch', kinds.exceptions, '--namespace=shop', 'proxy', '--type=json'],
          '--patch=[{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"add","path":"/spec/podLabels","value":{"a":"b"}}]',
          '--field-manager=kubectl-nmi',
          '--context=dev',
        ],
      ],
    );
    const shown = await play(['exception', 'update', 'proxy', '--pod-labels', 'a=b'], testBed);
    assert.match(shown.stdout, /^# spec\.podLabels was app=proxy\.$/m);
    assert.match(shown.stdout, /^# kubectl --context=dev patch /m);
  });

  it('leaves one that is as wanted', async () => {
    const words = ['exception', 'add', 'proxy', '--pod-labels', 'app=proxy', '--apply'];
    const { code, stdout, calls } = await play(words, testBed);
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /AzurePodIdentityException shop\/proxy is there already\./);
  });

  it('deletes one', async () => {
    assert.match(
      (await play(['exception', 'delete', 'proxy'], testBed)).stdout,
      /^# kubectl --context=dev delete azurepodidentityexceptions/m,
    );
    assert.equal((await play(['exception', 'delete', 'proxy', '--apply'], testBed)).code, 2);
    assert.match(
      (await play(['exception', 'delete', 'proxy', '--apply', '--yes'], testBed)).stdout,
      /done\n$/,
    );
    assert.equal((await play(['exception', 'delete', 'none'], testBed)).code, 1);
  });

  it('lists them with their pods', async () => {
    assert.match(
      (await play(['exception', 'list'], testBed)).stdout,
      /\nshop +proxy +app=proxy +p\n$/,
    );
  });

  it('refuses invalid labels, and none', async () => {
    for (const labels of ['app', 'app=a b', 'app=a,app=b', '']) {
      const { code, stderr } = await play(
        ['exception', 'add', 'x', '--pod-labels', labels],
        testBed,
      );
      assert.equal(code, 2, labels);
      assert.match(stderr, /--pod-labels has the value|pod-labels/);
    }
    const none = await play(['exception', 'add', 'x'], testBed);
    assert.equal(none.code, 2);
    assert.match(none.stderr, /exception add needs --pod-labels/);
  });
});
