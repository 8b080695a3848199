import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  classifyFailure,
  renderRules,
  toPluginError,
} from '../../../src/kubectl/transport/kubectl-failure.ts';

const said: readonly (readonly [stderr: string, kind: string, code: number])[] = [
  [
    'E1127 05:55:01.234567 4242 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group list"\nThe connection to the server localhost:8080 was refused - did you specify the right host or port?',
    'no-config',
    2,
  ],
  ['error: context "prod" does not exist', 'no-config', 2],
  ['error: current-context is not set', 'no-config', 2],
  [
    'The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?',
    'unreachable',
    69,
  ],
  [
    'Unable to connect to the server: dial tcp: lookup api.example: no such host',
    'unreachable',
    69,
  ],
  [
    'Unable to connect to the server: getting credentials: exec: executable kubelogin not found',
    'unreachable',
    69,
  ],
  ['error: You must be logged in to the server (Unauthorized)', 'unauthorized', 77],
  ['error: the server doesn\'t have a resource type "azureidentities"', 'no-kind', 1],
  ['Error from server (NotFound): namespaces "x" not found', 'not-found', 1],
  ['Error from server (Conflict): the object has been modified', 'other', 1],
  ['', 'other', 1],
];

describe('a kubectl that fails', () => {
  for (const [stderr, kind, code] of said) {
    it(`is ${kind}: ${stderr.split('\n').at(-1) ?? ''}`, () => {
      const failure = classifyFailure({ code: 1, stderr });
      assert.equal(failure.kind, kind);
      assert.equal(toPluginError(failure, 'list pods').exitCode, code);
      assert.notEqual(toPluginError(failure, 'list pods').nextStep, '');
      assert.doesNotMatch(toPluginError(failure, 'list pods').message, /E1127|\n/);
    });
  }

  it('is quoted from the first word, without the prefix', () => {
    const failure = classifyFailure({ code: 1, stderr: 'error: the object has been modified\n' });
    assert.equal(
      toPluginError(failure, 'list pods').message,
      'cannot list pods: the object has been modified',
    );
  });

  it('is quoted by its last line, also if it only logged its attempts', () => {
    for (const [stderr, quoted] of [
      [
        'Warning: v1 is deprecated\nerror: the object has been modified\n',
        'the object has been modified',
      ],
      ['E1127 05:55:01 first\nE1127 05:55:02 second\n\n', 'E1127 05:55:02 second'],
      ['\n', 'kubectl gave no reason'],
    ] as const) {
      const { message } = toPluginError(classifyFailure({ code: 1, stderr }), 'list pods');
      assert.equal(message, `cannot list pods: ${quoted}`);
    }
  });

  it('is missing', () => {
    const error = toPluginError(classifyFailure({ code: undefined, stderr: '' }), 'list pods');
    assert.equal(error.exitCode, 69);
    assert.match(error.message, /cannot list pods: the program kubectl is not on the PATH/);
  });

  it('is forbidden, and the error names the rule that would allow it', () => {
    const stderr =
      'Error from server (Forbidden): deployments.apps is forbidden: User "dev" cannot list resource "deployments" in API group "apps" in the namespace "shop"';
    const failure = classifyFailure({ code: 1, stderr });
    assert.deepEqual(failure.kind === 'forbidden' && failure.rule, {
      verb: 'list',
      resource: 'deployments.apps',
      namespace: 'shop',
    });
    const error = toPluginError(failure, 'list deployments');
    assert.equal(error.exitCode, 77);
    assert.match(
      error.nextStep,
      /apiGroups: \["apps"\], resources: \["deployments"\], verbs: \["list"\] in namespace shop/,
    );
    const jobs = { verb: 'list', resource: 'jobs.batch', namespace: 'shop' };
    const rules = [jobs, { ...jobs, resource: 'cronjobs.batch' }, { ...jobs, namespace: '' }, jobs];
    assert.equal(
      renderRules(rules),
      'apiGroups: ["batch"], resources: ["jobs", "cronjobs"], verbs: ["list"] in namespace shop; ' +
        'apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"] in a ClusterRole',
    );
    assert.match(
      renderRules([{ verb: 'get', resource: 'nodes', namespace: '' }]),
      /^apiGroups: \[""\], resources: \["nodes"\], verbs: \["get"\] in a ClusterRole$/,
    );
  });
});
