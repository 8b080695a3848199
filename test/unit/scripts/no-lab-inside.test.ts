/**
 * The product contains no part of the test bed: no fake that would give out tokens, no scenario, no
 * raw socket in an addon that is loaded as root. Each search also runs on a file in which it must
 * find something.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { before, describe, it } from 'node:test';
import { scenarios } from '../../../lab/scenarios/all.ts';
import { freshExecutable } from '../../../scripts/build.ts';
import { bundle } from '../../../scripts/bundle.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

/** Functions and classes in these folders; the bundler keeps their names. */
const labNames = namesExportedBy('lab/{fakes,frames,fabric,pods,testBed}/**/*.ts');

/** The form of a title in a bundle, unless it is concatenated: quotes and non-ASCII are escaped. */
const titles = scenarios
  .map(({ title }) => longest(title.split(/[^ -~]|["'`\\]/)))
  .filter((title) => sourcesOf('lab/scenarios/**/*.ts').some(({ text }) => text.includes(title)));

describe('the executable and its addon', { timeout: 240_000 }, () => {
  let executable = '';
  let script = '';
  let addon = '';
  let framesAddon = '';
  const addonFile = (name: string) => join(repositoryRoot, 'dist', name);

  before(async () => {
    const path = await freshExecutable();
    executable = readFileSync(path, 'latin1');
    script = readFileSync(join(dirname(path), 'nmi.cjs'), 'latin1');
    addon = readFileSync(addonFile('native/nmi.node'), 'latin1');
    framesAddon = readFileSync(addonFile('lab/frames.node'), 'latin1');
  });

  it('contain no fake, no other code of the lab, and no scenario', async () => {
    assert.ok(labNames.includes('openFakeImds') && labNames.includes('openFrameWire'));
    assert.ok(titles.length > 50 && titles.every((title) => title.length > 15));
    for (const text of [executable, script, addon]) assert.deepEqual(foundIn(text, labNames), []);
    for (const title of titles) assert.ok(!executable.includes(title), title);
    const { modules } = await bundle(join(repositoryRoot, 'src/main.ts'), stamp);
    assert.ok(modules.some((id) => id.endsWith('/src/nmi/agent.ts')));
    const ofLab = modules.filter((id) => id.startsWith(join(repositoryRoot, 'lab/')));
    assert.deepEqual(ofLab, []);
  });

  it('would be detected: the lab bundled in the same way has all of it', async () => {
    const lab = await bundle(join(repositoryRoot, 'lab/main.ts'), stamp);
    const found = foundIn(lab.script, labNames);
    for (const name of ['openFakeImds', 'openFakeKube', 'openFakeEntra', 'openFrameWire']) {
      assert.ok(found.includes(name), name);
    }
    for (const title of titles) assert.ok(lab.script.includes(title), title);
  });

  it('open no raw socket', () => {
    assert.deepEqual(exportsOf(addonFile('lab/frames.node')), ['openFrames']);
    const exported = exportsOf(addonFile('native/nmi.node'));
    assert.ok(exported.includes('callerOf'));
    assert.ok(!exported.includes('openFrames'));
    // Frames are bound to an interface; nothing else calls the C library for the index of one.
    for (const mark of ['openFrames', 'if_nametoindex']) {
      assert.ok(framesAddon.includes(mark), mark);
      assert.ok(!addon.includes(mark), mark);
    }
    assert.deepEqual(filesWithRawSockets('src/**/*.{c,h}'), []);
    assert.deepEqual(filesWithRawSockets('lab/**/*.{c,h}'), ['lab/frames/native/frames.c']);
  });
});

/** Without those that the product uses. */
function namesExportedBy(pattern: string): readonly string[] {
  const product = new Set(sourcesOf('src/**/*.ts').flatMap(({ text }) => wordsOf(text)));
  return sourcesOf(pattern)
    .flatMap(({ text }) => [
      ...text.matchAll(
        /^export (?:async )?(?:function|class) ((?:create|forge|open|run)?[A-Z]\w+)/gm,
      ),
    ])
    .map(([, name = '']) => name)
    .filter((name) => name.length > 8 && !product.has(name));
}

function foundIn(text: string, names: readonly string[]): readonly string[] {
  const words = new Set(wordsOf(text));
  return names.filter((name) => words.has(name));
}

function wordsOf(text: string): readonly string[] {
  return text.match(/[A-Za-z]\w{8,}/g) ?? [];
}

function longest(texts: readonly string[]): string {
  return texts.toSorted((a, b) => b.length - a.length)[0] ?? '';
}

function exportsOf(addon: string): readonly string[] {
  const loaded: { exports: object } = { exports: {} };
  process.dlopen(loaded, addon, constants.dlopen.RTLD_NOW);
  return Object.keys(loaded.exports);
}

/** Raw netlink sockets give no access to the network. */
function filesWithRawSockets(pattern: string): readonly string[] {
  return sourcesOf(pattern)
    .filter(({ text }) => /[AP]F_PACKET|if_packet|IPPROTO_RAW|(?<!AF_NETLINK, )SOCK_RAW/.test(text))
    .map(({ path }) => path);
}

function sourcesOf(pattern: string): readonly { readonly path: string; readonly text: string }[] {
  return globSync(pattern, { cwd: repositoryRoot }).map((path) => ({
    path,
    text: readFileSync(join(repositoryRoot, path), 'utf8'),
  }));
}
