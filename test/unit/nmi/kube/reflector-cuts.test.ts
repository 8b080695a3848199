import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { replayCut, streamBytes, type RawObject, type Recording } from './recorded-stream.ts';

/** A pod on the wire, with characters of one to four bytes. */
function rawPod(name: string, uid: string, version: number, note: string): RawObject {
  const metadata = { name, namespace: 'shop', uid, resourceVersion: `${version}` };
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { ...metadata, labels: { note } },
    spec: { nodeName: 'node-a' },
    status: { phase: 'Running', podIP: '10.1.0.1' },
  };
}

const names = ['a', 'b', 'c'] as const;
const anyStep = fc.record({
  step: fc.constantFrom('apply', 'apply', 'delete', 'bookmark'),
  name: fc.constantFrom(...names),
  note: fc.constantFrom('x', 'é', '€', '𝄞', '"\\\n'),
  // Writes to other objects have no event, but change the version.
  skipped: fc.nat(2),
});
const anySteps = fc.array(anyStep, { minLength: 2, maxLength: 7 });

const recordings: fc.Arbitrary<Recording> = fc
  .tuple(fc.subarray([...names]), anySteps)
  .map(([initial, steps]) => {
    const before = initial.map((name) => rawPod(name, `${name}-0`, 90, 'before'));
    const uids = new Map(before.map(({ metadata }) => [metadata.name, metadata.uid]));
    let version = 100;
    const lines = steps.map(({ step, name, note, skipped }) => {
      version += 1 + skipped;
      const present = uids.get(name);
      if (step === 'bookmark' || (step === 'delete' && present === undefined)) {
        const metadata = { resourceVersion: `${version}` };
        return { type: 'BOOKMARK', object: { metadata } };
      }
      const uid = present ?? `${name}-${version}`;
      if (step === 'delete') uids.delete(name);
      else uids.set(name, uid);
      const type = present === undefined ? 'ADDED' : 'MODIFIED';
      const object = rawPod(name, uid, version, note);
      return { type: step === 'delete' ? 'DELETED' : type, object };
    });
    return { before, version: '100', lines: lines.map((line) => JSON.stringify(line)) };
  });

describe('a stream that is cut', () => {
  for (const listBy of ['pages', 'stream'] as const) {
    it(`at any byte loses and repeats no event, and empties nothing (list by ${listBy})`, async () => {
      let cuts = 0;
      await fc.assert(
        fc.asyncProperty(recordings, async (recording) => {
          const bytes = streamBytes(recording, listBy);
          const listBytes = bytes.length - streamBytes(recording, 'pages').length;
          for (let cutAt = 0; cutAt <= bytes.length; cutAt += 1) {
            cuts += 1;
            const lists = await replayCut(recording, listBy, cutAt).catch((cause: unknown) => {
              throw new Error(`cut at byte ${cutAt} of ${bytes.length}`, { cause });
            });
            // An incomplete list is discarded; a complete one is never requested again.
            assert.equal(lists, listBy === 'stream' && cutAt < listBytes ? 2 : 1);
          }
        }),
        { numRuns: 12 },
      );
      assert.ok(cuts > 1000, `${cuts} cuts`);
    });
  }
});
