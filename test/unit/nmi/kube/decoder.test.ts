import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import type { Binding } from '../../../../src/cache/index/objects.ts';
import type { JsonRecord } from '../../../../src/base/json-value.ts';
import { createDecoder } from '../../../../src/nmi/kube/watch/decoder.ts';
import { parseBinding } from '../../../../src/nmi/kube/watch/parse.ts';
import { MapStore } from './kube-test-bed.ts';

function rawBinding(name: string, uid: string, selector: unknown = 'web'): JsonRecord {
  return { metadata: { namespace: 'shop', name, uid }, spec: { azureIdentity: 'id', selector } };
}

function openIntake() {
  const store = new MapStore<Binding>();
  const skips: string[] = [];
  const intake = createDecoder({
    parse: parseBinding,
    store,
    onSkip: (ref, reason) => skips.push(`${ref?.name ?? 'nobody'}: ${reason}`),
  });
  return {
    skips,
    store,
    intake,
    uids: () => [...store.items.values()].map(({ uid }) => uid).sort(),
  };
}

describe('an object of a watch', () => {
  const unusable = 'spec.selector is not a string';

  it('is stored, changed and removed', () => {
    const { store, intake, uids } = openIntake();
    intake.changed(rawBinding('one', 'one-1', 'old'));
    intake.changed(rawBinding('two', 'two-1'));
    intake.changed(rawBinding('one', 'one-1', 'new'));
    assert.equal(store.items.get('shop/one')?.selector, 'new');
    intake.deleted(rawBinding('one', 'one-1'));
    assert.deepEqual(uids(), ['two-1']);
    assert.equal(intake.objects, 1);
  });

  it('that became unusable is removed, and reported once until the reason changes', () => {
    const { intake, skips, uids } = openIntake();
    intake.changed(rawBinding('one', 'one-1'));
    for (const selector of [7, 8]) intake.changed(rawBinding('one', 'one-1', selector));
    assert.deepEqual(uids(), []);
    assert.deepEqual([skips, intake.rejected], [[`one: ${unusable}`], 2]);
    intake.changed({ ...rawBinding('one', 'one-1'), spec: 7 });
    assert.deepEqual(skips, [`one: ${unusable}`, 'one: spec is not an object']);
    intake.changed(rawBinding('one', 'one-1'));
    intake.changed(rawBinding('one', 'one-1', 7));
    assert.equal(skips.length, 3, 'it was usable in between');
  });

  it('that could not be decoded is removed, and left out of a list, if it has a name', () => {
    const { intake, skips, uids } = openIntake();
    const ref = { namespace: 'shop', name: 'one', uid: 'one-1' };
    intake.changed(rawBinding('one', 'one-1'));
    intake.reject(ref, 'too long');
    assert.deepEqual(uids(), []);
    const list = intake.gather();
    for (const name of ['one', 'two']) list.changed(rawBinding(name, `${name}-1`));
    list.reject(ref, 'too long');
    list.reject(undefined, 'too long');
    list.commit();
    assert.deepEqual(uids(), ['two-1']);
    assert.deepEqual(skips, ['one: too long', 'one: too long', 'nobody: too long']);
    assert.equal(intake.rejected, 3, 'the list had a usable version in between');
  });

  it('that is deleted may be unusable, but must have a name', () => {
    const { intake, skips, uids } = openIntake();
    intake.changed(rawBinding('one', 'one-1'));
    intake.deleted(rawBinding('one', 'one-1', 7));
    assert.deepEqual([uids(), skips], [[], []]);
    assert.throws(() => intake.deleted({ metadata: {} }), { code: 'MALFORMED' });
    intake.changed({ metadata: {} });
    assert.match(skips[0] ?? '', /^nobody: metadata\.namespace/);
  });
});

describe('a list that is collected while objects change', () => {
  it('contains the events after a deletion, and not those before', () => {
    const { intake, uids } = openIntake();
    const gathering = intake.gather();
    for (const name of ['one', 'two']) gathering.changed(rawBinding(name, `${name}-1`));
    gathering.deleted(rawBinding('one', 'one-1'));
    gathering.changed(rawBinding('three', 'three-1'));
    gathering.changed(rawBinding('one', 'one-2'));
    gathering.deleted(rawBinding('three', 'three-1'));
    gathering.commit();
    assert.deepEqual(uids(), ['one-2', 'two-1']);
    assert.equal(intake.objects, 2);
  });

  it('contains the last version of each object, and none that became unusable', () => {
    const { store, intake, uids } = openIntake();
    const gathering = intake.gather();
    gathering.changed(rawBinding('one', 'one-1', 'old'));
    gathering.changed(rawBinding('two', 'two-1'));
    gathering.changed(rawBinding('one', 'one-1', 'new'));
    gathering.changed(rawBinding('two', 'two-1', 7));
    gathering.commit();
    assert.deepEqual(uids(), ['one-1']);
    assert.equal(store.items.get('shop/one')?.selector, 'new');
    assert.equal(intake.objects, 1);
    assert.equal(intake.rejected, 1);
  });
});

describe('the objects of one namespace', () => {
  const noRoom = /already take 24 MiB; delete some of this kind/;
  const largest = 'x'.repeat(16_000);
  const limitBytes = 24 * 1024 * 1024;

  function large(at: number, namespace = 'shop'): JsonRecord {
    const metadata = { namespace, name: `large-${at}`, uid: `${namespace}-${at}` };
    return { metadata, spec: { azureIdentity: 'id', selector: largest } };
  }

  function fill(changes: { changed(object: unknown): void }, count: number): void {
    for (let at = 0; at < count; at++) changes.changed(large(at));
  }

  it('take 24 MiB at most; objects of others are stored as before', () => {
    const { intake, skips, store } = openIntake();
    fill(intake, 1_600);
    assert.ok(intake.bytes <= limitBytes && intake.bytes > limitBytes - 20_000);
    assert.equal(skips.length, 1_600 - store.items.size);
    assert.match(skips[0] ?? '', noRoom);
    intake.changed(large(0, 'team-b'));
    assert.ok(store.items.has('team-b/large-0'));
  });

  it('have room again when some are deleted, whatever versions came before', () => {
    const { intake, skips, store } = openIntake();
    for (let round = 0; round < 3; round++) fill(intake, 1_500);
    assert.deepEqual(skips, []);
    fill(intake, 1_600);
    const refused = skips.length;
    for (let at = 0; at < 100; at++) intake.deleted(large(at));
    for (let at = 1_500; at < 1_590; at++) intake.changed(large(at));
    assert.equal(skips.length, refused);
    assert.equal(store.items.size, intake.objects);
    for (let at = 0; at < 1_600; at++) intake.deleted(large(at));
    assert.equal(intake.bytes, 0);
  });

  it('take no more by a list, which counts alone from then on', () => {
    const { intake, skips, store } = openIntake();
    fill(intake, 1_500);
    const list = intake.gather();
    fill(list, 1_600);
    list.deleted(large(0));
    list.commit();
    assert.match(skips[0] ?? '', noRoom);
    assert.ok(store.items.size > 1_500 && !store.items.has('shop/large-0'));
    const empty = intake.gather();
    empty.commit();
    assert.equal(intake.bytes, 0);
    fill(intake, 1_500);
    assert.equal(store.items.size, 1_500);
  });

  it('that find no room lose the version that was stored', () => {
    const { intake, store } = openIntake();
    fill(intake, 1_523);
    intake.changed(rawBinding('small', 'small-1'));
    assert.ok(store.items.has('shop/small'));
    const before = intake.bytes;
    intake.changed(rawBinding('small', 'small-1', largest));
    assert.ok(!store.items.has('shop/small'));
    assert.ok(intake.bytes < before);
  });
});
