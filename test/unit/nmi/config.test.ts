import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { type Config, parseConfig } from '../../../src/nmi/config/config.ts';
import {
  alwaysTrue,
  anyText,
  boolean,
  choice,
  durationOrNever,
  integer,
  ipOrAll,
  ipv4,
  list,
  matching,
  type OptionType,
  path,
  pathOrOff,
  port,
  portOrOff,
  seconds,
} from '../../../src/nmi/config/option-types.ts';
import {
  environmentName,
  environmentNames,
  findIgnored,
  findOption,
  flagNames,
  hasFlag,
  ignoredFlags,
  type Option,
  options,
  spellings,
} from '../../../src/nmi/config/options.ts';
import { shownFlags } from '../../../src/nmi/config/shown-flags.ts';
import { tuning } from '../../../src/nmi/config/tuning.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

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
    for (const taken of ['2579', '2580']) {
      assert.deepEqual(problemsOf({ node: 'n', 'http-probe-port': taken }), ['--http-probe-port']);
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
    const result = parseConfig({ node: 'n' }, { NMI_REDIRECT: 'address' });
    assert.deepEqual(result, { ok: false, problems: [`NMI_REDIRECT ${problem}`] });
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

  it('refuses a limit that a watch cannot meet, and accepts 0 for no limit', () => {
    const limited = (limit: string) => ({ node: 'n', 'address-staleness-limit': limit });
    for (const limit of ['9999ms', '25h']) {
      assert.deepEqual(problemsOf(limited(limit)), ['--address-staleness-limit'], limit);
    }
    for (const [limit, ms] of [
      ['0', 0],
      ['10s', 10_000],
      ['24h', 86_400_000],
    ] as const) {
      assert.equal(accepted(limited(limit)).addressStalenessLimitMs, ms);
    }
    assert.equal(accepted({}).addressStalenessLimitMs, 900_000);
  });

  it('converts -v into a level only when no level is set', () => {
    const levels = ['3', '4', '5', '6'].map((v) => accepted({ v }).logLevel);
    assert.deepEqual(levels, ['info', 'debug', 'debug', 'trace']);
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

describe('accepted option values are', () => {
  const dated = durationOrNever('10s', '1m');
  const words = choice(['auto', 'none']);
  const items = list('of some words', choice(['a', 'b']).parse, /^(?:a|b)$/);
  const table: readonly (readonly [
    what: string,
    type: OptionType<unknown>,
    values: Readonly<Record<string, unknown>>,
    refused: readonly string[],
  ])[] = [
    [
      'true as in Go',
      boolean,
      { 1: true, t: true, T: true, TRUE: true, true: true, True: true },
      [],
    ],
    [
      'false as in Go',
      boolean,
      { 0: false, f: false, F: false, FALSE: false, false: false, False: false },
      ['', 'yes', 'tRUE', '10', ' 1', 'falsey', 'untrue'],
    ],
    ['only true', alwaysTrue('so it is'), { true: true, 1: true }, ['false', '0', 'x']],
    ['ports', port, { 1: 1, 65535: 65_535 }, ['-1', '0', '65536']],
    ['ports, or 0 for none', portOrOff, { 0: 0, 1: 1, 65535: 65_535 }, ['-1', '65536']],
    [
      'whole numbers within their range',
      integer(-1, 10),
      { '-1': -1, 10: 10, '+7': 7, '007': 7 },
      ['-2', '11', '', '1.5', '1e1', '0x1', ' 1', '1 ', '9'.repeat(16)],
    ],
    ['seconds in milliseconds', seconds(1, 60), { 1: 1_000, 60: 60_000 }, ['0', '61']],
    [
      'durations within their range, or 0 for none',
      dated,
      { 0: 0, '0s': 0, '10s': 10_000, '1m': 60_000 },
      ['9.9s', '60001ms', '10', '-1m', '15 m', ''],
    ],
    [
      'addresses of both families, or none for all',
      ipOrAll,
      { '': '', '::1': '::1', '10.0.0.1': '10.0.0.1' },
      ['10.0.0', 'localhost'],
    ],
    ['addresses of IPv4', ipv4, { '10.0.0.1': '10.0.0.1' }, ['::1', '10.0.0', '']],
    ['words in any letter case', words, { auto: 'auto', NONE: 'none' }, ['aut', '']],
    [
      'lists without blanks, empty items and repetitions',
      items,
      { 'a, b,,a': ['a', 'b'], '': [], ' , ': [] },
      ['a,c'],
    ],
    ['any text', anyText, { '': '', ' x': ' x' }, []],
    ['texts of a pattern', matching(/^\d+$/, 'digits'), { 12: '12' }, ['x']],
    ['paths, or off', pathOrOff(/^(?:off|\/.+)$/, 'a path'), { off: '', '/a': '/a' }, ['a']],
  ];
  for (const [what, type, values, refused] of table) {
    it(what, () => {
      for (const [text, value] of Object.entries(values)) assert.deepEqual(type.parse(text), value);
      for (const text of refused) assert.equal(type.parse(text), undefined, text);
    });
  }

  it('named in an error', () => {
    assert.equal(alwaysTrue('so it is').allowed, 'true: so it is');
    assert.equal(integer(-1, 10).allowed, 'a whole number from -1 to 10');
    assert.deepEqual(
      [words.allowed, choice(['a'], 'in words').allowed],
      ['auto, none', 'in words'],
    );
    assert.equal(items.allowed, 'of some words, comma separated');
  });

  it('shown as they are parsed', () => {
    const shows: readonly (readonly [OptionType<unknown>, ...texts: string[]])[] = [
      [boolean, 'true', 'false'],
      [alwaysTrue('so it is'), 'true'],
      [integer(-5, 70_000), '-5', '0', '70000'],
      [seconds(1, 3_600), '1', '3600'],
      [durationOrNever('10s', '24h'), '0', '10s', '86400s'],
      [ipv4, '169.254.25.79'],
      [choice(['off', 'warn']), 'off', 'warn'],
    ];
    for (const [type, ...texts] of shows) {
      for (const text of texts) assert.equal(type.show?.(type.parse(text)), text);
    }
  });

  it('not shown where they are free text, which may be a path or a secret', () => {
    const free = [anyText, path, matching(/x/, 'x'), pathOrOff(/x/, 'x'), list('x', String, /x/)];
    assert.ok(free.every((type) => !('show' in type)));
  });
});

describe('the table of options', () => {
  const node = findOption('node');
  const listenAddress = findOption('nmi-listen-address');

  it('finds an option by every spelling of its flag', () => {
    assert.equal(node?.key, 'node');
    for (const option of options.filter(hasFlag)) {
      for (const spelling of spellings(option)) assert.equal(findOption(spelling), option);
    }
    assert.equal(findOption('Node'), undefined);
    assert.equal(findOption('enable-conntrack-deletion'), undefined);
    assert.ok(options.some(({ old }) => old !== undefined && flagNames.includes(old)));
  });

  it('has no flag for manifest-only settings', () => {
    const without = options.filter((option) => !hasFlag(option));
    assert.ok(without.length > 0);
    for (const { name, group } of without) {
      assert.equal(group, 'Environment only');
      assert.equal(findOption(name), undefined);
    }
  });

  it('has the flags without effect, and those of them without a value', () => {
    assert.equal(findIgnored('logtostderr')?.isBoolean, true);
    assert.equal(findIgnored('log_file')?.isBoolean, false);
    assert.match(findIgnored('MICNamespace')?.reason ?? '', /AzurePodIdentityException/);
    assert.match(findIgnored('pods-from')?.reason ?? '', /pods are read from the API server/);
    assert.equal(findIgnored('node'), undefined);
  });

  it('has for `nmi redirect` and `nmi conditions` the options that they read', () => {
    const namesWhere = (isMeant: (option: (typeof options)[number]) => boolean | undefined) =>
      options.filter(isMeant).map(({ name }) => name);
    const ofAll = 'http-probe-port prometheus-port prometheus-address log-format log-level';
    const redirect =
      'nmi-listen-address nmi-port redirect ipt-update-interval-sec metadata-ip metadata-port ' +
      `${ofAll} iptables-backend metadata-guard boot-guard-folder slot-folder`;
    const conditions =
      'kubeconfig custom-user-agent identity-owners cloud entra-authority entra-audience ' +
      `${ofAll} v max-watch-events-per-sec agent-daemonset agent-namespace`;
    assert.equal(namesWhere(({ isOfRedirect }) => isOfRedirect).join(' '), redirect);
    assert.equal(namesWhere(({ isOfConditions }) => isOfConditions).join(' '), conditions);
  });

  it('names variables after flags, with the prefix once or twice', () => {
    assert.ok(node !== undefined && listenAddress !== undefined);
    assert.equal(environmentName(listenAddress), 'NMI_LISTEN_ADDRESS');
    assert.deepEqual(environmentNames(listenAddress), [
      'NMI_LISTEN_ADDRESS',
      'NMI_NMI_LISTEN_ADDRESS',
    ]);
    const [own, ...others] = environmentNames(node);
    assert.equal(own, 'NMI_NODE');
    assert.deepEqual(others, node.otherVariables ?? []);
  });

  it('accepts an absolute path of the folder of the slots, or none', () => {
    const type = options.find(({ name }) => name === 'slot-folder')?.type;
    for (const text of ['/run/nmi-agent', '/a b']) assert.equal(type?.parse(text), text);
    assert.equal(type?.parse('off'), '');
    for (const text of ['', 'on', 'run/nmi', '/', '/a\0b'])
      assert.equal(type?.parse(text), undefined);
  });

  it('accepts the name of a node, and no invalid one', () => {
    assert.equal(node?.type.parse('aks-pool-1'), 'aks-pool-1');
    for (const text of ['', 'Node', 'a_b', '../x']) assert.equal(node?.type.parse(text), undefined);
  });
});

function shown(flags: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
  const parsed = parseConfig({ node: 'node-1', ...flags }, {});
  assert.ok(parsed.ok);
  return shownFlags(parsed.config);
}

describe('the flags that everyone may read', () => {
  it('are all flags, with their current values', () => {
    const flags = shown({ redirect: 'none', v: '6', 'http-probe-port': '1' });
    const names = options.filter(hasFlag).map(({ name }) => name);
    assert.deepEqual([...flags.keys()], names.toSorted());
    assert.equal(flags.get('redirect'), 'none');
    assert.equal(flags.get('nmi-listen-address'), '169.254.25.79');
    assert.equal(flags.get('http-probe-port'), '1');
    assert.equal(flags.get('log-level'), 'trace');
    assert.equal(flags.get('address-staleness-limit'), '900s');
    // The defaults of free text are documented.
    assert.equal(flags.get('kubelet-config'), '/etc/default/kubelet');
    assert.equal(flags.get('kubeconfig'), '');
  });

  it('hide all free text of an operator', () => {
    const secret = 'secret-of-the-operator';
    const given = {
      kubeconfig: `/etc/${secret}`,
      'custom-user-agent': secret,
      'entra-authority': `https://${secret}.example.com`,
      'entra-ca-file': `/${secret}.pem`,
    };
    const flags = shown(given);
    assert.doesNotMatch([...flags.values()].join('\n'), /secret-of|node-1/);
    for (const name of [...Object.keys(given), 'node']) {
      assert.equal(flags.get(name), '<redacted>', name);
    }
  });
});

describe('the limits of the agent', () => {
  it('allow as long as Kubernetes and the callers wait, and no longer', () => {
    const manifest = readFileSync(new URL('../../../deploy/nmi.yaml', import.meta.url), 'utf8');
    const [, stopSec] = /^ {6}terminationGracePeriodSeconds: (\d+)$/m.exec(manifest)!;
    const stopMs = Number(stopSec) * 1_000;
    assert.ok(tuning.drainTimeoutMs >= tuning.entraTimeoutMs, 'a running token request ends');
    assert.ok(tuning.drainTimeoutMs < stopMs, 'the agent ends before it is killed');
    for (const timeoutMs of [tuning.entraTimeoutMs, tuning.imdsTimeoutMs]) {
      assert.ok(timeoutMs > tuning.lateObjectWaitMs, 'a late pod still gets its token');
    }
    assert.ok(tuning.lateObjectWaitMs >= 1_000, 'an event of a watch may take a second');
    assert.ok(tuning.bindingGraceMs > tuning.lateObjectWaitMs);
    assert.ok(tuning.watchStalenessLimitMs > 2 * 101_000, 'a lost proof does no harm');
    assert.ok(tuning.tokenCacheSize >= 250 * 80);
  });
});
