import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  replayCut,
  streamBytes,
  type ListBy,
  type RawObject,
  type Recording,
} from './recorded-stream.ts';

/** A pod on the wire, with characters of one to four bytes. */
function rawPod(name: string, uid: number, version: number, note: string): RawObject {
  const metadata = { name, namespace: 'shop', uid: `uid-${uid}`, resourceVersion: `${version}` };
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { ...metadata, labels: { note } },
    spec: { nodeName: 'node-a' },
    status: { phase: 'Running', podIP: '10.1.0.1' },
  };
}

type Step = 'apply' | 'delete' | 'bookmark';
const names = ['a', 'b', 'c'] as const;

const recordings: fc.Arbitrary<Recording> = fc
  .record({
    before: fc.subarray([...names]),
    steps: fc.array(
      fc.record({
        step: fc.constantFrom<Step>('apply', 'apply', 'delete', 'bookmark'),
        name: fc.constantFrom(...names),
        note: fc.constantFrom('x', 'é', '€', '𝄞', '"\\\n'),
        // Writes to other objects have no event, but change the version.
        skipped: fc.nat(2),
      }),
      { minLength: 2, maxLength: 7 },
    ),
  })
  .map(({ before, steps }) => {
    let version = 100;
    let uid = 0;
    const present = new Map<string, RawObject>();
    for (const name of before) present.set(name, rawPod(name, (uid += 1), 90 + uid, 'before'));
    const recording = { before: [...present.values()], version: '100', lines: [] as string[] };
    for (const { step, name, note, skipped } of steps) {
      version += 1 + skipped;
      const was = present.get(name);
      const line = lineOf(step, was, () =>
        rawPod(
          name,
          was === undefined ? (uid += 1) : Number(was.metadata.uid.slice(4)),
          version,
          note,
        ),
      );
      if (line === undefined) {
        const metadata = { resourceVersion: `${version}` };
        recording.lines.push(JSON.stringify({ type: 'BOOKMARK', object: { metadata } }));
        continue;
      }
      if (line.type === 'DELETED') present.delete(name);
      else present.set(name, line.object);
      recording.lines.push(JSON.stringify(line));
    }
    return recording;
  });

/** Undefined if only the version changes. */
function lineOf(
  step: Step,
  was: RawObject | undefined,
  make: () => RawObject,
): { readonly type: string; readonly object: RawObject } | undefined {
  if (step === 'bookmark' || (step === 'delete' && was === undefined)) return undefined;
  if (step === 'delete') return { type: 'DELETED', object: make() };
  return { type: was === undefined ? 'ADDED' : 'MODIFIED', object: make() };
}

describe('a stream that is cut', () => {
  for (const listBy of ['pages', 'stream'] as const satisfies readonly ListBy[]) {
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
