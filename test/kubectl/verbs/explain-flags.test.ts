import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, createAgentPod, createPod, play } from '../support/recorded-kubectl.ts';

const pods = [
  createPod('web', { labels: { aadpodidbinding: 'orders' } }),
  createAgentPod('node-1'),
];
const testBed = boundTestBed({ pods });

describe('the arguments of kubectl nmi explain', () => {
  it('are understood as those of kubectl', async () => {
    for (const words of [
      ['pod', 'web'],
      ['pods', 'web'],
      ['po', 'web'],
      ['pod/web'],
      ['Pods/web'],
    ]) {
      const { code, stdout, stderr } = await play(['explain', ...words], testBed);
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
      assert.match(stdout, /^pod shop\/web: GRANTED/);
    }
  });

  it('are refused with the reason', async () => {
    const refusals: readonly (readonly [words: readonly string[], stderr: RegExp])[] = [
      [['explain'], /^error: [^\n]+\n[^\n]+\n$/],
      [
        ['explain', 'pod'],
        /^error: explain pod needs a name\nWrite: kubectl nmi explain pod NAME\n$/,
      ],
      [['explain', 'pod/'], /^error: explain pod needs a name\n/],
      [['explain', 'pod/web', 'api'], /^error: explain takes one object\n/],
      [['explain', 'pod/web/api'], /^error: explain takes one object\n/],
      [['explain', 'node', 'x'], /^error: explain knows no kind node\nName a pod, deployment,/],
      [['explain', 'identity', 'x'], /^error: explain knows no kind identity\n/],
      [['explain', 'web'], /^error: explain knows no kind web\n/],
      [['explain', 'constructor', 'web'], /^error: explain knows no kind constructor\n/],
      [['explain', 'pod', 'web', '-A'], /^error: unknown flag -A\n/],
      [['explain', 'pod', 'web', '--bogus'], /^error: [^\n]+\n[^\n]+\n$/],
    ];
    for (const [words, expected] of refusals) {
      const { code, stdout, stderr } = await play(words, testBed);
      assert.equal(code, 2, words.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, expected);
    }
  });

  it('have a help with an example', async () => {
    const { code, stdout } = await play(['explain', '--help']);
    assert.equal(code, 0);
    assert.match(stdout, /kubectl nmi explain pod web-7d4b9 -n shop/);
    assert.match(stdout, /kubectl nmi explain deploy\/web -n shop/);
  });
});
