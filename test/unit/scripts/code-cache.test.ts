import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { before, describe, it } from 'node:test';
import vm from 'node:vm';
import { bundleProgram } from '../../../scripts/bundle.ts';
import { makeCodeCache, renderEntry, wrapBundle } from '../../../scripts/code-cache.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

describe('the compiled code in the executable', () => {
  let wrapped = '';

  before(async () => {
    const { script } = await bundleProgram(repositoryRoot, stamp);
    wrapped = wrapBundle(script);
  });

  it('is the same bytes each time, so that an image can be built again and compared', () => {
    const made = [makeCodeCache(wrapped), makeCodeCache(wrapped)];
    const digests = made.map((bytes) => createHash('sha256').update(bytes).digest('hex'));
    assert.equal(digests[0], digests[1]);
    // It includes the code of a start, not only the code that runs when the script is loaded.
    const loadedOnly = new vm.Script(wrapped).createCachedData().length;
    assert.ok((made[0]?.length ?? 0) > loadedOnly + 500_000);
  });
});

describe('the entry of the executable', () => {
  const loader = 'exports.programText = (asset) => Buffer.from(asset).latin1Slice();';

  /** The exports of the bundle, and its output on standard error. */
  function start(wrapped: string, code: Buffer) {
    const assets: Readonly<Record<string, Buffer>> = { bundle: Buffer.from(wrapped), code };
    const printed: string[] = [];
    const exported = {};
    const modules: Readonly<Record<string, unknown>> = {
      'node:sea': { getRawAsset: (name: string) => new Uint8Array(assets[name] ?? []).buffer },
      'node:vm': vm,
    };
    const names = ['require', 'process', 'exports', 'module', '__filename', '__dirname'];
    const entry: unknown = vm.compileFunction(renderEntry(loader, 'bundle', 'code'), names);
    assert.ok(typeof entry === 'function');
    const stderr = { write: (text: string) => printed.push(text) };
    Reflect.apply(entry, undefined, [
      (name: string) => modules[name],
      { stderr },
      exported,
      {},
      '',
      '',
    ]);
    return { exported, printed };
  }

  it('runs the bundle with its compiled code', () => {
    const wrapped = wrapBundle('exports.ran = true;');
    const compiled = new vm.Script(wrapped, { filename: 'nmi.cjs' }).createCachedData();
    assert.deepEqual(start(wrapped, compiled), { exported: { ran: true }, printed: [] });
  });

  it('reports code that V8 rejects, and still runs the bundle', () => {
    const { exported, printed } = start(
      // V8 caches sources that it has compiled.
      wrapBundle('exports.ran = true; /* another one */'),
      Buffer.alloc(100),
    );
    assert.deepEqual(exported, { ran: true });
    assert.deepEqual(printed, ['nmi: compiled code was rejected, the start takes longer\n']);
  });
});
