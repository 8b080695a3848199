import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  countUnread,
  describeUnread,
  mergeUnread,
  renderUnread,
} from '../../../src/kubectl/cluster/unread.ts';

const forbidden = (resource: string, loses: string) => {
  const rule = { verb: 'list', resource, namespace: 'shop' };
  const failure = { kind: 'forbidden', rule, detail: '' } as const;
  return describeUnread(`list ${resource}`, failure, loses);
};

describe('what was not read', () => {
  it('is one entry for each loss, with every rule that would avoid it', () => {
    const merged = mergeUnread([
      forbidden('jobs.batch', 'owners'),
      forbidden('networkpolicies.networking.k8s.io', 'policies'),
      forbidden('cronjobs.batch', 'owners'),
    ]);
    assert.deepEqual(
      merged.map(({ what, why }) => `${what}: ${why}`),
      [
        'list cronjobs.batch, list jobs.batch: no right; RBAC rule: apiGroups: ["batch"], resources: ["cronjobs", "jobs"], verbs: ["list"] in namespace shop',
        'list networkpolicies.networking.k8s.io: no right; RBAC rule: apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list"] in namespace shop',
      ],
    );
  });

  it('keeps other reasons than a missing right apart', () => {
    const other = { loses: 'owners', what: 'list jobs.batch', why: 'no such kind' };
    const merged = mergeUnread([forbidden('cronjobs.batch', 'owners'), other]);
    assert.deepEqual(
      merged.map(({ what }) => what),
      ['list cronjobs.batch', 'list jobs.batch'],
    );
    assert.deepEqual(merged[1], other);
  });

  it('is one line with a count, or all of it', () => {
    const unread = [forbidden('jobs.batch', 'owners'), forbidden('nodes', 'nodes')];
    assert.deepEqual(countUnread(unread), ['Not checked (2; -v shows why): owners; nodes.']);
    assert.deepEqual(renderUnread(unread).slice(0, 4), [
      '',
      'Not checked:',
      '  owners',
      '    cannot list jobs.batch: no right; RBAC rule: apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"] in namespace shop',
    ]);
    assert.deepEqual([countUnread([]), renderUnread([])], [[], []]);
  });
});
