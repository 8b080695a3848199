import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { jsonPatch } from '../../../../lab/fakes/kube/patches.ts';
import {
  digestOf,
  parseConditions,
  patchOf,
  renderConditions,
  type Condition,
} from '../../../../src/nmi/conditions/condition.ts';

const nowWallMs = Date.UTC(2026, 0, 1, 10, 0, 0, 999);
const valid: Condition = { type: 'Valid', status: 'True', reason: 'ok', message: '' };
const wrong: Condition = {
  type: 'Ready',
  status: 'False',
  reason: 'credential_missing',
  message: 'Secret a/b does not exist. Create it.',
};
const none = parseConditions(undefined);

describe('conditions', () => {
  it('are in the format of Kubernetes', () => {
    assert.deepEqual(renderConditions([valid, wrong], 3, none, nowWallMs), [
      {
        type: 'Valid',
        status: 'True',
        reason: 'ok',
        message: '',
        observedGeneration: 3,
        lastTransitionTime: '2026-01-01T10:00:00Z',
      },
      {
        type: 'Ready',
        status: 'False',
        reason: 'credential_missing',
        message: 'Secret a/b does not exist. Create it.',
        observedGeneration: 3,
        lastTransitionTime: '2026-01-01T10:00:00Z',
      },
    ]);
  });

  it('are equal to the written ones, in any order', () => {
    const conditions = renderConditions([valid, wrong], 3, none, nowWallMs);
    for (const list of [conditions, conditions.toReversed()]) {
      assert.equal(parseConditions({ conditions: list }).digest, digestOf([valid, wrong], 3));
    }
  });

  it('differ in any field except the time', () => {
    const digest = digestOf([valid, wrong], 3);
    for (const [name, other] of Object.entries({
      generation: digestOf([valid, wrong], 4),
      status: digestOf([{ ...valid, status: 'Unknown', reason: 'identity_invalid' }, wrong], 3),
      reason: digestOf([valid, { ...wrong, reason: 'identity_invalid' }], 3),
      message: digestOf([valid, { ...wrong, message: '' }], 3),
      less: digestOf([valid], 3),
      nothing: none.digest,
    })) {
      assert.notEqual(other, digest, name);
    }
  });

  it('keep the time of an unchanged status, and no other', () => {
    const before = parseConditions({
      conditions: renderConditions([valid, wrong], 3, none, nowWallMs),
    });
    const changed = [valid, { ...valid, type: 'Ready' as const }];
    const times = renderConditions(changed, 4, before, nowWallMs + 60_000).map(
      (each) => (each as { lastTransitionTime: string }).lastTransitionTime,
    );
    assert.deepEqual(times, ['2026-01-01T10:00:00Z', '2026-01-01T10:01:00Z']);
    const text = { ...wrong, message: 'another text' };
    const [same] = renderConditions([text], 4, before, nowWallMs + 60_000);
    assert.equal(
      (same as { lastTransitionTime: string }).lastTransitionTime,
      '2026-01-01T10:00:00Z',
    );
  });

  it('of other types, and invalid ones, are ignored', () => {
    const foreign = { type: 'Synced', status: 'True', reason: 'x', message: 'x'.repeat(10_000) };
    const conditions = [foreign, 7, null, 'text', { status: 'True' }];
    const { digest, each } = none;
    for (const status of [{ conditions }, null, 7, [], { conditions: {} }, { conditions: null }]) {
      const parsed = parseConditions(status);
      assert.deepEqual([parsed.digest, parsed.each], [digest, each]);
    }
    const odd = { type: 'Ready', status: 'Perhaps', lastTransitionTime: 'once'.repeat(1_000) };
    assert.deepEqual(parseConditions({ conditions: [odd] }).each, []);
    assert.notEqual(parseConditions({ conditions: [odd] }).digest, none.digest);
  });
});

describe('a patch of conditions', () => {
  const foreign = { type: 'Synced', status: 'True', reason: 'x', message: '' };
  const other = { type: 'Paused', status: 'False', reason: 'y', message: '' };
  const written = renderConditions([valid, wrong], 3, none, nowWallMs);
  const patched = (status: unknown): unknown => {
    const object = { metadata: { resourceVersion: '7', name: 'a' }, spec: {}, status };
    const existing = parseConditions(status);
    const after = jsonPatch(object, patchOf('7', existing, written));
    const { status: left, ...rest } = after as typeof object;
    assert.deepEqual(rest, { metadata: object.metadata, spec: object.spec });
    return left;
  };

  it('puts ours in, whatever the status was', () => {
    for (const status of [undefined, null, {}, { conditions: null }, { conditions: [] }]) {
      assert.deepEqual(patched(status), { conditions: written });
    }
    assert.deepEqual(patched({ availableReplicas: 1 }), {
      availableReplicas: 1,
      conditions: written,
    });
  });

  it('replaces ours, also twofold ones, and leaves those of other programs', () => {
    const stale = { ...valid, type: 'IdentityFound' };
    for (const conditions of [
      [foreign, other],
      [valid, foreign, wrong, other],
      [foreign, stale, valid, valid, other],
      [...Array.from({ length: 20 }, () => foreign), other, wrong],
    ]) {
      const theirs = conditions.filter(({ type }) => type === 'Synced' || type === 'Paused');
      assert.deepEqual(patched({ conditions }), { conditions: [...theirs, ...written] });
    }
  });

  it('has a bounded number of operations, and ends with ours after some of them', () => {
    let status: unknown = { conditions: Array.from({ length: 40 }, () => wrong) };
    assert.ok(patchOf('7', parseConditions(status), written).length < 25);
    for (let writes = 0; writes < 4; writes++) status = patched(status);
    assert.deepEqual(status, { conditions: written });
  });

  it('names the version that it is for', () => {
    const [first] = patchOf('7', none, written);
    assert.deepEqual(first, { op: 'replace', path: '/metadata/resourceVersion', value: '7' });
  });
});
