import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { boundTestBed, kinds, play, type Recorded } from '../support/recorded-kubectl.ts';

const analyzeWith = async (recorded: Recorded) => {
  const { code, stdout, stderr } = await play(['analyze', '-o', 'json'], recorded);
  return {
    code,
    stderr,
    answer:
      stdout === ''
        ? undefined
        : (JSON.parse(stdout) as {
            unread: { what: string; why: string; loses: string }[];
          }),
  };
};

describe('reading a cluster', () => {
  it('needs pods and the three kinds, and names the rule when they are forbidden', async () => {
    for (const kind of ['pods', kinds.identities, kinds.bindings, kinds.exceptions]) {
      const { code, stderr } = await analyzeWith({
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
    const { code, answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'network policies',
      'owners of pods',
      'service accounts',
    ]);
    assert.match(answer?.unread[0]?.why ?? '', /no right; RBAC rule: apiGroups/);
  });

  it('has one rule for the kinds of a group, and every kind in a rule', async () => {
    const forbidden = Object.fromEntries(
      ['statefulsets.apps', 'jobs.batch', 'cronjobs.batch'].map(
        (kind) => [kind, 'everywhere'] as const,
      ),
    );
    const { answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.deepEqual(
      answer?.unread.map(({ what, why }) => [what, why]),
      [
        [
          'list cronjobs.batch, list jobs.batch, list statefulsets.apps',
          'no right; RBAC rule: apiGroups: ["batch"], resources: ["cronjobs", "jobs"], verbs: ["list"] in namespace shop; ' +
            'apiGroups: ["apps"], resources: ["statefulsets"], verbs: ["list"] in namespace shop',
        ],
      ],
    );
  });

  it('reads one namespace if the user may not read all', async () => {
    const forbidden = { [kinds.identities]: 'all-namespaces', pods: 'other-namespaces' } as const;
    const { code, answer } = await analyzeWith({ ...boundTestBed(), forbidden });
    assert.equal(code, 0);
    assert.deepEqual(answer?.unread.map(({ loses }) => loses).toSorted(), [
      'objects of other namespaces',
      'options and state of the agents',
    ]);
  });

  it('fails clearly without the definitions of the kinds', async () => {
    const { code, stderr } = await analyzeWith({ ...boundTestBed(), missing: [kinds.identities] });
    assert.equal(code, 1);
    assert.match(
      stderr,
      /azureidentities\.aadpodidentity\.k8s\.io: the server does not have this kind of object\nInstall the custom resource definitions/,
    );
  });

  it('continues without a kind that an old server lacks', async () => {
    const { code, answer } = await analyzeWith({ ...boundTestBed(), missing: ['cronjobs.batch'] });
    assert.equal(code, 0);
    assert.match(answer?.unread[0]?.why ?? '', /cannot list cronjobs.batch/);
  });
});
