import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  findOption,
  parseConfig,
  renderProblem,
  type Config,
} from '../../../src/nmi/config/config.ts';
import { environmentName, options, type Option } from '../../../src/nmi/config/options.ts';

const rows: readonly Option[] = options;

function accepted(flags: Record<string, string>, environment: Record<string, string> = {}): Config {
  const result = parseConfig({ node: 'n', ...flags }, environment);
  assert.ok(result.ok, JSON.stringify(result));
  return result.config;
}

function problemsOf(flags: Record<string, string>, environment: Record<string, string> = {}) {
  const result = parseConfig(flags, environment);
  assert.ok(!result.ok);
  return result.problems.map((problem) => problem.flag);
}

describe('the configuration', () => {
  it('starts on the flags of an existing manifest', () => {
    const result = parseConfig(
      {
        node: 'aks-1',
        'operation-mode': 'managed',
        forceNamespaced: 'true',
        'http-probe-port': '8085',
        enableScaleFeatures: 'true',
        'metadata-header-required': 'true',
      },
      { HOST_IP: '10.0.0.1', NODE_NAME: 'aks-1' },
    );
    assert.ok(result.ok);
    assert.equal(result.config.probePort, 8085);
    assert.deepEqual(result.warnings, [
      '--enableScaleFeatures has no effect: it filtered a watch of standard mode',
    ]);
  });

  // Section 1.1 of the replaced system's reference, by spelling.
  const oldFlags = [
    ...['nmi-listen-address', 'nmi-port', 'metadata-ip', 'metadata-port', 'node'],
    ...['ipt-update-interval-sec', 'forceNamespaced', 'MICNamespace', 'http-probe-port'],
    ...['prometheus-port', 'retry-attempts-for-created', 'retry-attempts-for-assigned'],
    ...['find-identity-retry-interval', 'enableProfile', 'enableScaleFeatures'],
    ...['block-instance-metadata', 'metadata-header-required', 'operation-mode'],
    ...['allow-network-plugin-kubenet', 'kubelet-config', 'set-retry-after-header'],
    ...['enable-conntrack-deletion', 'custom-user-agent', 'log-format', 'v', 'vmodule'],
    ...['logtostderr', 'alsologtostderr', 'stderrthreshold', 'log_dir', 'log_file'],
    ...['log_file_max_size', 'skip_headers', 'skip_log_headers', 'add_dir_header'],
    ...['one_output', 'log_backtrace_at'],
  ];
  for (const flag of oldFlags) {
    it(`knows the old flag ${flag}, with its default as a value`, () => {
      const option = findOption(flag);
      assert.ok(option !== undefined);
      if (flag === 'node') return;
      accepted({ [flag]: String(option.default) });
    });
  }

  it('reports all problems together, each with flag, value and what is allowed', () => {
    const result = parseConfig(
      {
        'nmi-port': 'NaN',
        'http-probe-port': '70000',
        'operation-mode': 'standard',
        forceNamespaced: 'false',
        'nmi-listen-address': '::1',
        'no-such-flag': 'x',
        'ipt-update-interval-sec': '0',
      },
      { NMI_TOKEN_CACHE_SIZE: '0' },
    );
    assert.ok(!result.ok);
    const lines = result.problems.map(renderProblem);
    const expected = [
      '--nmi-port has the value "NaN"; allowed: a whole number from 1 to 65535',
      '--http-probe-port has the value "70000"; allowed: a whole number from 0 to 65535',
      '--no-such-flag is an unknown flag; see nmi run --help',
      '--node is missing; allowed: the name of this Kubernetes node; set it from spec.nodeName',
      '--forceNamespaced has the value "false"; allowed: true: matching is always namespaced',
      'NMI_TOKEN_CACHE_SIZE has the value "0"; allowed: a whole number from 1 to 1000000',
    ];
    for (const line of expected) assert.ok(lines.includes(line), `${line}\n${lines.join('\n')}`);
    assert.ok(lines.some((line) => line.startsWith('--operation-mode has the value "standard"')));
    assert.ok(lines.some((line) => line.startsWith('--nmi-listen-address')));
    assert.equal(lines.length, 9);
  });

  it('takes booleans as Go does and no others', () => {
    for (const text of ['1', 't', 'T', 'TRUE', 'true', 'True']) {
      assert.equal(accepted({ 'strict-identity': text }).strictIdentity, true);
    }
    for (const text of ['0', 'f', 'F', 'FALSE', 'false', 'False']) {
      assert.equal(accepted({ 'metadata-guard': text }).metadataGuard, false);
    }
    assert.deepEqual(problemsOf({ node: 'n', 'strict-identity': 'yes' }), ['--strict-identity']);
  });

  it('prefers a flag to the environment and the environment to the default', () => {
    assert.equal(accepted({}, {}).listenPort, 2579);
    assert.equal(accepted({}, { NMI_NMI_PORT: '2600' }).listenPort, 2600);
    assert.equal(accepted({ 'nmi-port': '2700' }, { NMI_NMI_PORT: 'x' }).listenPort, 2700);
  });

  it('does not take the variables of a Kubernetes service named nmi for settings', () => {
    const injected = {
      NMI_PORT: 'tcp://10.0.0.7:80',
      NMI_SERVICE_HOST: '10.0.0.7',
      NMI_SERVICE_PORT: '80',
      NMI_PORT_80_TCP: 'tcp://10.0.0.7:80',
    };
    assert.equal(accepted({}, injected).listenPort, 2579);
  });

  it('takes both spellings of a flag, but not at once', () => {
    assert.ok(parseConfig({ node: 'n', 'force-namespaced': 'true' }, {}).ok);
    const both = { node: 'n', 'force-namespaced': 'true', forceNamespaced: 'true' };
    assert.deepEqual(problemsOf(both), ['--forceNamespaced']);
  });

  it('refuses two listeners on one port', () => {
    assert.deepEqual(problemsOf({ node: 'n', 'http-probe-port': '2579' }), ['--http-probe-port']);
    assert.deepEqual(problemsOf({ node: 'n', 'prometheus-port': '2579' }), ['--prometheus-port']);
  });

  it('takes no limit that a watch could not keep, and 0 for no limit', () => {
    const limited = (seconds: string) => ({ node: 'n', 'address-staleness-limit-sec': seconds });
    for (const seconds of ['1', '9']) {
      assert.deepEqual(problemsOf(limited(seconds)), ['--address-staleness-limit-sec']);
    }
    for (const seconds of ['0', '10', '86400']) assert.ok(parseConfig(limited(seconds), {}).ok);
  });

  it('turns -v into a level only where no level is set', () => {
    assert.equal(accepted({ v: '5' }).logLevel, 'debug');
    assert.equal(accepted({ v: '6' }).logLevel, 'trace');
    assert.equal(accepted({ v: '6', 'log-level': 'warn' }).logLevel, 'warn');
  });

  it('names every option once, in kebab case, with an environment name of its own', () => {
    const names = rows.flatMap((row) => (row.old === undefined ? [row.name] : [row.name, row.old]));
    assert.equal(new Set(names).size, names.length);
    for (const row of rows) assert.match(row.name, /^[a-z]+(-[a-z]+)*$/);
    const variables = rows.map(environmentName);
    assert.equal(new Set(variables).size, variables.length);
  });

  it('has a default that its own row accepts', () => {
    for (const row of rows) {
      if (row.default === '' || row.name === 'node') continue;
      accepted({ [row.name]: String(row.default) });
    }
  });
});
