import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  boundTestBed,
  createObject,
  createPod,
  kinds,
  ok,
  play,
} from '../support/recorded-kubectl.ts';

const proxy = createObject('AzurePodIdentityException', 'proxy', { podLabels: { app: 'proxy' } });
const testBed = {
  ...boundTestBed({
    pods: [createPod('p', { labels: { app: 'PROXY' } }), createPod('web')],
    [kinds.exceptions]: [proxy],
  }),
  other: () => ok('done\n'),
};

describe('kubectl nmi exception', () => {
  it('is added', async () => {
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
      /exists; its spec\.podLabels is \{"app":"proxy"\}, .*\nChoose another name, or change it/,
    );
  });

  it('leaves one that is as wanted', async () => {
    const words = ['exception', 'add', 'proxy', '--pod-labels', 'app=proxy', '--apply'];
    const { code, stdout, calls } = await play(words, testBed);
    assert.deepEqual([code, calls], [0, []]);
    assert.match(stdout, /AzurePodIdentityException shop\/proxy is there already\./);
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
