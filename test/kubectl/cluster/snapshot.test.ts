import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, kinds, play, type Recorded } from '../support/recorded-kubectl.ts';

const explainWith = async (recorded: Recorded) => {
  const { code, stdout, stderr } = await play(['explain', 'pod', 'web', '-o', 'json'], recorded);
  return {
    code,
    stderr,
    answer:
      stdout === ''
        ? undefined
        : (JSON.parse(stdout) as {
            unread: { what: string; why: string; loses: string }[];
            verdict: string;
          }),
  };
};

describe('reading a cluster', () => {
  it('needs pods and the three kinds, and names the rule when they are forbidden', async () => {
    for (const kind of ['pods', kinds.identities, kinds.bindings, kinds.exceptions]) {
      const { code, stderr } = await explainWith({
        ...boundTestBed(),
        forbidden: { [kind]: 'everywhere' },
      });
      assert.equal(code, 77, kind);
      assert.match(
        stderr,
        /Ask for this RBAC rule: apiGroups: .*verbs: \["list"\] in namespace shop/,
      );
    }
  });

  it('needs nothing else, and reports what is unknown without it', async () => {
    const forbidden = Object.fromEntries(
      [
        ...[kinds.policies, kinds.deployments, 'serviceaccounts', 'statefulsets.apps'],
        ...['daemonsets.apps', 'cronjobs.batch', 'jobs.batch'],
      ].map((kind) => [kind, 'everywhere' as const]),
    );
    const { code, answer } = await explainWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.equal(answer?.verdict, 'granted');
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'annotations for Workload Identity',
      'whether network policies let pods reach the agent',
      'whether the label is on the owner and not on its pod template',
    ]);
    assert.match(answer?.unread[0]?.why ?? '', /no right; RBAC rule: apiGroups/);
  });

  it('names the rule for each of two kinds of owners, and one line for many', async () => {
    const unreadWithout = async (...kindsOfOwners: readonly string[]) => {
      const forbidden = Object.fromEntries(
        kindsOfOwners.map((kind) => [kind, 'everywhere' as const]),
      );
      return (await explainWith({ ...boundTestBed(), forbidden })).answer?.unread ?? [];
    };
    const two = await unreadWithout('statefulsets.apps', 'jobs.batch');
    assert.deepEqual(
      two.map(({ what, why }) => [what, /resources: \["(.*?)"\]/.exec(why)?.[1]]),
      [
        ['list jobs.batch', 'jobs'],
        ['list statefulsets.apps', 'statefulsets'],
      ],
    );
    const three = await unreadWithout('statefulsets.apps', 'jobs.batch', 'cronjobs.batch');
    assert.deepEqual(
      three.map(({ what }) => what),
      ['list cronjobs.batch, list jobs.batch, list statefulsets.apps'],
    );
  });

  it('reads one namespace if the user may not read all', async () => {
    const forbidden = { [kinds.identities]: 'all-namespaces', pods: 'other-namespaces' } as const;
    const { code, answer } = await explainWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.equal(answer?.verdict, 'granted');
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'objects in the wrong namespace',
      'options and state of the agents',
    ]);
  });

  it('fails clearly without the definitions of the kinds', async () => {
    const { code, stderr } = await explainWith({ ...boundTestBed(), missing: [kinds.identities] });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /azureidentities\.aadpodidentity\.k8s\.io: the server does not have this kind of object\nInstall the custom resource definitions/,
    );
  });

  it('continues without a kind that an old server lacks', async () => {
    const { code, answer } = await explainWith({ ...boundTestBed(), missing: ['cronjobs.batch'] });
    assert.equal(code, 0);
    assert.match(answer?.unread[0]?.why ?? '', /cannot list cronjobs.batch/);
  });
});
