import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { exitCodes } from '../../../src/kubectl/base/io.ts';
import {
  conditionOf,
  itemsOf,
  labelsOf,
  recordsAt,
  templateOf,
  textsAt,
  titleOf,
} from '../../../src/kubectl/base/object.ts';
import { renderReport, renderYaml, shellWord } from '../../../src/kubectl/base/output.ts';
import { paint } from '../../../src/kubectl/base/paint.ts';
import { redactObject, redactText } from '../../../src/kubectl/base/redact.ts';
import { play } from './recorded-kubectl.ts';

describe('the exit codes of the plugin', () => {
  it('are those that its help names, and 70 for a bug', async () => {
    const { bug, ...others } = exitCodes;
    assert.equal(bug, 70);
    const { stdout } = await play('--help');
    const [, list = ''] = /Exit codes: ([^.]+)\./.exec(stdout.replaceAll(/\s+/g, ' ')) ?? [];
    assert.deepEqual(
      list.split(', ').map((each) => Number(each.split(' ')[0])),
      Object.values(others),
    );
    assert.equal(exitCodes.ok, 0);
  });
});

describe('a raw object', () => {
  it('is read without trusting its shape', () => {
    assert.equal(titleOf({ metadata: { name: 'a', namespace: 'n' } }), 'n/a');
    assert.equal(titleOf({ metadata: { name: 'node-1' } }), 'node-1');
    assert.equal(titleOf({ metadata: 7 }), '');
    assert.deepEqual([...labelsOf({ metadata: { labels: { a: 'b', c: 1 } } })], [['a', 'b']]);
    assert.equal(labelsOf({ metadata: { labels: {} } }).get('constructor'), undefined);
    assert.deepEqual(recordsAt({ list: [{ a: 1 }, 2, null, [3]] }, 'list'), [{ a: 1 }]);
    assert.deepEqual(recordsAt({ list: 'x' }, 'list'), []);
    assert.deepEqual(textsAt({ list: ['a', 1] }, 'list'), ['a']);
    assert.deepEqual(textsAt(undefined, 'list'), []);
  });

  it('has the template of its pods, a CronJob in the template of its jobs', () => {
    const template = { metadata: { labels: { app: 'web' } } };
    assert.deepEqual(templateOf({ kind: 'Job', spec: { template } }), template);
    assert.deepEqual(
      templateOf({ kind: 'CronJob', spec: { jobTemplate: { spec: { template } } } }),
      template,
    );
    assert.equal(templateOf({ kind: 'Pod', spec: {} }), undefined);
  });

  it('has the condition of a type, if it has one', () => {
    const ready = { type: 'Ready', status: 'True' };
    const status = { conditions: [{ type: 'Synced' }, ready] };
    assert.deepEqual(conditionOf({ status }, 'Ready'), ready);
    assert.equal(conditionOf({ status }, 'Valid'), undefined);
  });

  it('becomes the items of a list, or itself', () => {
    assert.deepEqual(itemsOf({ kind: 'List', items: [{ a: 1 }] }), [{ a: 1 }]);
    assert.deepEqual(itemsOf({ kind: 'Pod' }), [{ kind: 'Pod' }]);
  });
});

describe('a report', () => {
  const value = { a: 'x\u001b[31m\u202e', b: '\u009b2J' };
  it('is the same value as text, JSON or YAML', () => {
    assert.equal(
      renderReport('text', value, () => ['one', 'two']),
      'one\ntwo\n',
    );
    assert.deepEqual(JSON.parse(renderReport('json', value, () => [])), value);
    assert.equal(
      renderReport('yaml', { a: 1, b: ['c'] }, () => []),
      'a: 1\nb:\n  - c\n',
    );
  });

  it('contains no terminal control sequences', () => {
    assert.equal(
      renderReport('text', {}, () => [value.a]),
      'x?[31m?\n',
    );
    assert.doesNotMatch(
      renderReport('json', value, () => []),
      /[^\n -~]/,
    );
    const parts = {
      'key\u202e': ['\u009b2J', 'del\u007f', 'a\u2028b', 'c\u2066', 'two\nlines\u0085', 'é'],
    };
    for (const each of [value, parts]) {
      const yaml = renderReport('yaml', each, () => []);
      assert.doesNotMatch(yaml, /[^\n -~é]/);
      assert.deepEqual(parse(yaml), each);
    }
  });

  it('quotes texts that kubectl would read as another type', () => {
    const labels = { a: 'yes', b: 'on', c: '0777', d: '2026-01-01', e: 'plain' };
    const yaml = renderYaml([labels]);
    assert.deepEqual(parse(yaml, { version: '1.1' }), labels);
    assert.deepEqual(parse(yaml), labels);
  });

  it('repeats an object that it contains twice', () => {
    const shared = { b: 1 };
    assert.equal(renderYaml([{ a: shared, c: shared }]), 'a:\n  b: 1\nc:\n  b: 1\n');
    assert.equal(renderYaml([{ a: 1 }, { b: 2 }]), 'a: 1\n---\nb: 2\n');
  });
});

describe('a word of a command line', () => {
  for (const word of ['plain-1.2/x', "it's", '$(id)', 'a b', '{"a":"b"}', '', '*', '~']) {
    it(`is unchanged by a shell: ${word}`, () => {
      const { stdout } = spawnSync('sh', ['-c', `printf %s ${shellWord(word)}`], {
        encoding: 'utf8',
      });
      assert.equal(stdout, word);
    });
  }
});

describe('colors', () => {
  const show = (report: string) => paint(report).replaceAll('\u001b', 'ESC');

  it('are those of severities, verdicts and titles', () => {
    for (const [line, painted] of [
      ['pod a/b: REFUSED, gets x', 'pod a/b: ESC[31mREFUSEDESC[39m, gets x'],
      ['pod a/b: GRANTED, gets x', 'pod a/b: ESC[32mGRANTEDESC[39m, gets x'],
      ['pod a/b: NOT READY: x', 'pod a/b: ESC[33mNOT READYESC[39m: x'],
      ['Findings:', 'ESC[1mFindings:ESC[22m'],
      ['error   Pod a/b: x', 'ESC[31merrorESC[39m   Pod a/b: x'],
      ['warning Pod a/b: x', 'ESC[33mwarningESC[39m Pod a/b: x'],
      ['info    Pod a/b: x', 'ESC[36minfoESC[39m    Pod a/b: x'],
      ['  error   Pod a/b: x', '  ESC[31merrorESC[39m   Pod a/b: x'],
      ['ok       agents  1', 'ESC[32mokESC[39m       agents  1'],
      ['warning  agents  1', 'ESC[33mwarningESC[39m  agents  1'],
      ['error: no', 'ESC[31merror:ESC[39m no'],
      ['warning: yes', 'ESC[33mwarning:ESC[39m yes'],
      ['        error in a text', '        error in a text'],
      // JSON and YAML.
      ['  "error": "x"', '  "error": "x"'],
      ['  - severity: error', '  - severity: error'],
    ] as const) {
      assert.equal(show(`first\n${line}\nlast\n`), `first\n${painted}\nlast\n`);
    }
  });
});

const jwt = ['eyJhbGciOiJSUzI1NiJ9', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl'].join('.');

describe('a dump', () => {
  it('has no token and no password in its texts', () => {
    for (const text of [
      `got ${jwt}`,
      'password=hunter2hunter2',
      '"client_secret": "abcdefghijk"',
      'https://x/?sig=abcdefghijkl',
    ]) {
      const clean = redactText(text);
      assert.match(clean, /\(removed\)/, text);
      assert.doesNotMatch(clean, /eyJ|hunter2|abcdefgh/, text);
    }
    for (const text of ['reason binding_missing', 'eyJ.txt', 'eyJhbGci']) {
      assert.equal(redactText(text), text);
    }
    assert.equal(redactText(`a.${jwt}`), 'a.(removed)');
  });

  it('has no user and no password of a URL, such as that of a proxy', () => {
    for (const [text, clean] of [
      ['http://bob:s3cret@proxy:3128', 'http://(removed)@proxy:3128'],
      ['dial "https://tok@h/a", next', 'dial "https://(removed)@h/a", next'],
      ['https://bob:p@s/s#w@proxy:3128', 'https://(removed)@proxy:3128'],
      ['://bob:s3cret@proxy', '://(removed)@proxy'],
      ['://tok@proxy', '://(removed)@proxy'],
      ['bob:s3cret@proxy:3128', '(removed)@proxy:3128'],
      ['--https-proxy=bob:s3=cret@proxy', '--https-proxy=(removed)@proxy'],
      ['--https-proxy=http://bob:s3cret@proxy', '--https-proxy=http://(removed)@proxy'],
      ['{\\"proxy\\":\\"http://bob:s3cret@proxy\\"}', '{\\"proxy\\":\\"http://(removed)@proxy\\"}'],
    ] as const) {
      assert.equal(redactText(text), clean);
    }
    for (const text of [
      'https://proxy:3128/a',
      'https://@proxy',
      'registry/nmi:1.0@sha256:0a1b',
      'docker-pullable://registry/nmi@sha256:0a1b',
      'mail to ann@example.org',
    ]) {
      assert.equal(redactText(text), text);
    }
    const container = {
      args: ['--https-proxy', 'http://bob:s3cret@proxy'],
      env: [{ name: 'HTTPS_PROXY', value: 'http://bob:s3cret@proxy' }],
    };
    const spec = { initContainers: [container], containers: [container] };
    assert.doesNotMatch(JSON.stringify(redactObject({ kind: 'Pod', spec })), /bob|s3cret/);
  });

  it('takes time in proportion to its length, whatever an annotation has', () => {
    const started = performance.now();
    for (const part of ['eyJaaaaa', ' ', 'token=', 'eyJ-aaaaa.', '://', 'a', 'a:', '@', 'a:b@'])
      redactText(part.repeat(100_000));
    assert.ok(performance.now() - started < 2_000);
  });

  it('has no secret values of environments, and no annotation of kubectl', () => {
    const env = [
      { name: 'DB_PASSWORD', value: 'x' },
      { name: 'MODE', value: 'fast' },
      { name: 'A', value: jwt },
    ];
    const clean = redactObject({
      kind: 'Pod',
      metadata: {
        name: 'p',
        managedFields: [1],
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': 'old', a: 'b' },
      },
      spec: { containers: [{ env, count: 3 }] },
    });
    assert.deepEqual(clean, {
      kind: 'Pod',
      metadata: { name: 'p', annotations: { a: 'b' } },
      spec: {
        containers: [
          {
            env: [
              { name: 'DB_PASSWORD', value: '(removed)' },
              { name: 'MODE', value: 'fast' },
              { name: 'A', value: '(removed)' },
            ],
            count: 3,
          },
        ],
      },
    });
  });
});
