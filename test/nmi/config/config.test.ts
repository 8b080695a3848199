import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseConfig, type Config } from '../../../src/nmi/config/config.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import {
  environmentName,
  environmentNames,
  findIgnored,
  findOption,
  hasFlag,
  ignoredFlags,
  options,
  spellings,
  type Option,
} from '../../../src/nmi/config/options.ts';

const rows: readonly Option[] = options;

function accepted(flags: Record<string, string>, environment: Record<string, string> = {}): Config {
  const result = parseConfig({ node: 'n', ...flags }, environment);
  assert.ok(result.ok, JSON.stringify(result));
  return result.config;
}

/** Flags or variables, as spelled in the problems. */
function problemsOf(flags: Record<string, string>, environment: Record<string, string> = {}) {
  const result = parseConfig(flags, environment);
  assert.ok(!result.ok);
  return result.problems.map((problem) => problem.split(' ')[0]);
}

function warningsOf(flags: Record<string, string>, environment: Record<string, string> = {}) {
  const result = parseConfig({ node: 'n', ...flags }, environment);
  assert.ok(result.ok, JSON.stringify(result));
  return result.warnings;
}

describe('the configuration', () => {
  it('starts with the flags of an existing manifest', () => {
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
    it(`accepts the old flag ${flag}`, () => {
      const option = findOption(flag);
      assert.ok(option !== undefined || findIgnored(flag) !== undefined);
      if (flag === 'node') return;
      accepted({ [flag]: option?.default ?? 'x' });
    });
  }

  it('reports all problems together, each with flag, value and allowed values', () => {
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
      { NMI_METADATA_PORT: '0' },
    );
    assert.ok(!result.ok);
    const lines = result.problems;
    const expected = [
      '--nmi-port has the value "NaN"; allowed: a whole number from 1 to 65534',
      '--http-probe-port has the value "70000"; allowed: a whole number from 0 to 65535',
      'unknown flag --no-such-flag; see nmi --help',
      '--node is missing; allowed: the name of this Kubernetes node; set it from spec.nodeName',
      '--forceNamespaced has the value "false"; allowed: true: matching is always namespaced',
      'NMI_METADATA_PORT has the value "0"; allowed: a whole number from 1 to 65535',
    ];
    for (const line of expected) assert.ok(lines.includes(line), `${line}\n${lines.join('\n')}`);
    assert.ok(lines.some((line) => line.startsWith('--operation-mode has the value "standard"')));
    assert.ok(lines.some((line) => line.startsWith('--nmi-listen-address')));
    assert.equal(lines.length, 9);
  });

  it('accepts the same booleans as Go, and no others', () => {
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
    assert.equal(accepted({}, { NMI_PORT: '2600' }).listenPort, 2600);
    assert.equal(accepted({ 'nmi-port': '2700' }, { NMI_PORT: 'x' }).listenPort, 2700);
    assert.equal(accepted({}, { KUBECONFIG: '/a' }).kubeconfigPath, '/a');
    assert.equal(accepted({}, { KUBECONFIG: '/a', NMI_KUBECONFIG: '/b' }).kubeconfigPath, '/b');
  });

  it('still accepts the variables with a doubled prefix', () => {
    const old = { NMI_NMI_PORT: '2600', NMI_NMI_LISTEN_ADDRESS: '10.0.0.1' };
    const { listenPort, listenIp } = accepted({}, old);
    assert.deepEqual([listenPort, listenIp], [2600, '10.0.0.1']);
    assert.deepEqual(warningsOf({}, old), []);
    assert.equal(accepted({}, { ...old, NMI_PORT: '2601' }).listenPort, 2601);
  });

  it('warns of an unknown variable, and names the most similar one', () => {
    assert.deepEqual(warningsOf({}, { NMI_METADATA_IPS: '10.0.0.1', OTHER: 'x' }), [
      'NMI_METADATA_IPS is unknown; did you mean NMI_METADATA_IP?',
    ]);
    const [removed, ...more] = warningsOf({}, { NMI_TOKEN_CACHE_SIZE: 'secret' });
    assert.match(removed ?? '', /^NMI_TOKEN_CACHE_SIZE is unknown$/);
    assert.deepEqual(more, []);
  });

  it('refuses an unknown flag, and names a similar one', () => {
    for (const [flag, says] of [
      ['strict-identiy', /^unknown flag --strict-identiy; did you mean --strict-identity\?; see/],
      [
        'address-staleness-limit-sec',
        /^unknown flag --address-staleness-limit-sec; did you mean --address-staleness-limit\?; see/,
      ],
      ['drain-timeout-sec', /^unknown flag --drain-timeout-sec; see nmi --help$/],
      ['pod-uid', /^unknown flag --pod-uid; see nmi --help$/],
      ['constructor', /^unknown flag --constructor; see nmi --help$/],
    ] as const) {
      const result = parseConfig({ node: 'n', [flag]: 'secret' }, {});
      assert.ok(!result.ok);
      assert.equal(result.problems.length, 1);
      assert.match(result.problems[0] ?? '', says);
    }
  });

  it('accepts manifest-only settings from variables', () => {
    const { podUid, cgroupRoot, bpfPinFolder, sharedFolder, explainSocket } = accepted(
      {},
      { NMI_POD_UID: 'u-1', NMI_CGROUP_ROOT: '/c', NMI_BPF_PIN_FOLDER: '/host/bpf/nmi' },
    );
    assert.deepEqual([podUid, cgroupRoot, bpfPinFolder], ['u-1', '/c', '/host/bpf/nmi']);
    assert.equal(sharedFolder, '/run/nmi');
    assert.equal(explainSocket, '/dev/shm/nmi/explain.sock');
    assert.equal(accepted({}, { NMI_EXPLAIN_SOCKET: 'off' }).explainSocket, '');
    const wrong = { NMI_POD_UID: 'A', NMI_CGROUP_ROOT: 'c', NMI_BPF_PIN_FOLDER: '/nmi' };
    const sockets = { NMI_SHARED_FOLDER: 'off', NMI_EXPLAIN_SOCKET: 'x' };
    assert.deepEqual(problemsOf({ node: 'n' }, { ...wrong, ...sockets }), [
      'NMI_POD_UID',
      'NMI_CGROUP_ROOT',
      'NMI_BPF_PIN_FOLDER',
      'NMI_SHARED_FOLDER',
      'NMI_EXPLAIN_SOCKET',
    ]);
  });

  it('accepts the origins of a custom cloud; the first is the default', () => {
    const config = accepted({ 'entra-authority': 'https://Login.corp.example/,https://b:8443' });
    assert.deepEqual(config.entraAuthorities, ['https://login.corp.example', 'https://b:8443']);
    for (const wrong of ['login.corp.example', 'http://a', 'https://a/b', 'https://a:99999']) {
      assert.deepEqual(problemsOf({ node: 'n', 'entra-authority': wrong }), ['--entra-authority']);
    }
  });

  it('ignores the variables that Kubernetes sets for services named nmi or nmi-nmi', () => {
    const injected = {
      NMI_PORT: 'tcp://10.0.0.7:80',
      NMI_SERVICE_HOST: '10.0.0.7',
      NMI_SERVICE_PORT: '80',
      NMI_SERVICE_PORT_HTTP: '80',
      NMI_PORT_80_TCP: 'tcp://10.0.0.7:80',
      NMI_PORT_80_TCP_ADDR: '10.0.0.7',
      // Of services named nmi-prometheus, nmi-metadata, nmi-http-probe.
      NMI_PROMETHEUS_PORT: 'tcp://10.0.0.8:9090',
      NMI_PROMETHEUS_SERVICE_PORT: '9090',
      NMI_METADATA_PORT: 'udp://10.0.0.9:80',
      NMI_METADATA_SERVICE_HOST: '10.0.0.9',
      NMI_HTTP_PROBE_PORT: 'tcp://10.0.0.9:8080',
      NMI_OTHER_PORT: 'tcp://10.0.0.9:1',
      NMI_NMI_PORT: 'tcp://[fd00::7]:80',
      NMI_NMI_PORT_80_TCP_PROTO: 'tcp',
      NMI_NMI_PORT_80_TCP_PORT: '80',
    };
    const config = accepted({}, injected);
    assert.deepEqual(config, accepted({}));
    assert.deepEqual(warningsOf({}, injected), []);
    assert.equal(accepted({}, { ...injected, NMI_NMI_PORT: '2600' }).listenPort, 2600);
  });

  it('accepts both spellings of a flag, but not at once', () => {
    assert.ok(parseConfig({ node: 'n', 'force-namespaced': 'true' }, {}).ok);
    const both = { node: 'n', 'force-namespaced': 'true', forceNamespaced: 'true' };
    assert.deepEqual(problemsOf(both), ['--forceNamespaced']);
  });

  it('refuses two listeners on one port', () => {
    for (const port of ['2579', '2580']) {
      assert.deepEqual(problemsOf({ node: 'n', 'http-probe-port': port }), ['--http-probe-port']);
    }
    const result = parseConfig({ node: 'n', 'prometheus-port': '2579' }, {});
    assert.ok(!result.ok);
    assert.deepEqual(result.problems, [
      '--prometheus-port has the value "2579"; allowed: another port than --nmi-port and the next one',
    ]);
  });

  it('refuses an address for metrics when their port is that of the probes', () => {
    const flags = { 'prometheus-address': '127.0.0.1' };
    assert.equal(accepted(flags).metricsAddress, '127.0.0.1');
    const both = { ...flags, 'prometheus-port': '8085', 'http-probe-port': '8085' };
    assert.deepEqual(problemsOf({ node: 'n', ...both }), ['--prometheus-address']);
    accepted({ 'prometheus-port': '8085', 'http-probe-port': '8085' });
    accepted({ ...flags, 'prometheus-port': '0', 'http-probe-port': '0' });
  });

  it('refuses the address mode, and says what to use instead', () => {
    const problem =
      'has the value "address"; allowed: auto, ebpf or iptables, which serve a node without a ' +
      'metadata service too; nothing else has to change there';
    for (const [shown, result] of [
      ['--redirect', parseConfig({ node: 'n', redirect: 'address' }, {})],
      ['NMI_REDIRECT', parseConfig({ node: 'n' }, { NMI_REDIRECT: 'address' })],
    ] as const) {
      assert.deepEqual(result, { ok: false, problems: [`${shown} ${problem}`] });
    }
  });

  it('does not let a redirect lead to the loopback of pods, and warns', () => {
    const leadsTo = (ip: string, redirect: string) => {
      const result = parseConfig({ node: 'n', redirect, 'nmi-listen-address': ip }, {});
      assert.ok(result.ok);
      return [result.config.listenIp, result.warnings.length];
    };
    for (const redirect of ['auto', 'ebpf', 'iptables', 'pinned']) {
      for (const ip of ['127.0.0.1', '127.255.0.9']) {
        assert.deepEqual(leadsTo(ip, redirect), [defaultTarget.listenIp, 1], `${redirect} ${ip}`);
      }
      for (const ip of ['128.0.0.1', '1.127.0.0', '0.0.0.0']) {
        assert.deepEqual(leadsTo(ip, redirect), [ip, 0], `${redirect} ${ip}`);
      }
    }
    assert.deepEqual(leadsTo('127.0.0.1', 'none'), ['127.0.0.1', 0]);
    const [warning] = warningsOf({ 'nmi-listen-address': '127.0.0.1' }, {});
    assert.match(
      warning ?? '',
      /no redirect can lead there: the agent listens on 169\.254\.25\.79$/,
    );
  });

  it('treats an empty variable as unset', () => {
    assert.deepEqual(accepted({}, { NMI_REDIRECT: '' }), accepted({}));
    assert.deepEqual(warningsOf({}, { NMI_UNKNOWN: '' }), []);
  });

  it('refuses a limit that a watch cannot meet, and accepts 0 for no limit', () => {
    const limited = (limit: string) => ({ node: 'n', 'address-staleness-limit': limit });
    for (const limit of ['1s', '9999ms', '25h', '900', '-1m', '15', '15 m', '']) {
      assert.deepEqual(problemsOf(limited(limit)), ['--address-staleness-limit'], limit);
    }
    for (const [limit, ms] of [
      ['0', 0],
      ['0s', 0],
      ['10s', 10_000],
      ['1m30s', 90_000],
      ['24h', 86_400_000],
    ] as const) {
      assert.equal(accepted(limited(limit)).addressStalenessLimitMs, ms);
    }
    assert.equal(accepted({}).addressStalenessLimitMs, 900_000);
  });

  it('converts -v into a level only when no level is set', () => {
    assert.equal(accepted({ v: '3' }).logLevel, 'info');
    assert.equal(accepted({ v: '4' }).logLevel, 'debug');
    assert.equal(accepted({ v: '5' }).logLevel, 'debug');
    assert.equal(accepted({ v: '6' }).logLevel, 'trace');
    assert.equal(accepted({ v: '6', 'log-level': 'warn' }).logLevel, 'warn');
  });

  it('lists every option once, in kebab case, with its own environment variable', () => {
    const names = [...rows.flatMap(spellings), ...ignoredFlags.map(({ name }) => name)];
    assert.equal(new Set(names).size, names.length);
    for (const row of rows) assert.match(row.name, /^[a-z]+(-[a-z]+)*$/);
    const variables = rows.flatMap(environmentNames);
    assert.equal(new Set(variables).size, variables.length);
    const keys = rows.map(({ key }) => key);
    assert.equal(new Set(keys).size, keys.length);
  });

  it('has a default that its own row accepts', () => {
    for (const { name, type, default: text } of rows) {
      assert.equal(type.parse(text) === undefined, name === 'node', name);
    }
  });

  it('refuses an empty flag when empty is not a value, and ignores an empty variable', () => {
    const mandatory = options.filter((option) => hasFlag(option) && option.default !== '');
    for (const option of mandatory) {
      assert.deepEqual(problemsOf({ node: 'n', [option.name]: '' }), [
        `${option.name.length === 1 ? '-' : '--'}${option.name}`,
      ]);
    }
    assert.deepEqual(problemsOf({ node: '' }), ['--node']);
    const empty = Object.fromEntries(options.map((option) => [environmentName(option), '']));
    assert.deepEqual(accepted({}, empty), accepted({}));
  });

  it('accepts any value of a flag without effect, and reports why it has none', () => {
    for (const { name, reason } of ignoredFlags) {
      assert.deepEqual(warningsOf({ [name]: 'x' }), [`--${name} has no effect: ${reason}`]);
    }
  });
});
