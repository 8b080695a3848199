/**
 * From raw flag texts and the environment to one readonly configuration in base units. All
 * problems are reported together; nothing here prints or exits.
 */
import { isIP, isIPv4 } from 'node:net';
import {
  backendChoices,
  environmentName,
  hostNetworkChoices,
  logFormats,
  logLevels,
  metadataAreas,
  options,
  redirectChoices,
  type Option,
} from './options.ts';
import { cloudNames, parseAuthorityHosts, type CloudName } from '../sources/entra/clouds.ts';

export interface Config {
  readonly node: string;
  readonly kubeconfigPath: string | undefined;
  readonly allowKubenet: boolean;
  readonly kubeletConfigPath: string;
  readonly customUserAgent: string;
  readonly watchStalenessLimitMs: number;
  /** 0 for none. */
  readonly addressStalenessLimitMs: number;
  readonly listenIp: string;
  readonly listenPort: number;
  readonly hostToken: boolean;
  readonly probePort: number;
  readonly metricsPort: number;
  /** Empty for none. */
  readonly explainSocket: string;
  readonly metadataIp: string;
  readonly metadataPort: number;
  readonly imdsTimeoutMs: number;
  readonly cloud: CloudName;
  /** An origin; empty for the cloud's. */
  readonly entraAuthority: string;
  /** Empty for that of the authority's cloud. */
  readonly federationAudience: string;
  /** As `resolveAuthority` takes them. */
  readonly authorityHosts: readonly string[];
  /** Empty for none. */
  readonly entraCaFile: string;
  readonly entraTimeoutMs: number;
  readonly workloadIdentity: boolean;
  readonly workloadIdentityTenant: string;
  readonly tokenCacheSize: number;
  readonly redirect: (typeof redirectChoices)[number];
  readonly iptablesBackend: (typeof backendChoices)[number];
  /** Where pods are in the cgroup2 tree; empty for where it is mounted. */
  readonly cgroupRoot: string;
  readonly bpfPinFolder: string;
  /** Empty for what is told by this process's own cgroup. */
  readonly podUid: string;
  readonly hostNetwork: (typeof hostNetworkChoices)[number];
  readonly metadataGuard: boolean;
  readonly redirectIntervalMs: number;
  readonly metadataHeaderRequired: boolean;
  readonly blockInstanceMetadata: boolean;
  readonly allowedAreas: readonly (typeof metadataAreas)[number][];
  readonly strictIdentity: boolean;
  readonly bindingGraceMs: number;
  readonly lateObjectWaitMs: number;
  readonly logFormat: (typeof logFormats)[number];
  readonly logLevel: (typeof logLevels)[number];
  /** Empty for none. */
  readonly startupTaint: string;
  readonly drainTimeoutMs: number;
}

/** One thing wrong with the command line or the environment. */
export interface ConfigProblem {
  /** The flag or variable as the user wrote it. */
  readonly flag: string;
  /** The value given; undefined when it is missing. */
  readonly value: string | undefined;
  /** Undefined for a flag that does not exist. */
  readonly allowed: string | undefined;
}

export type ConfigResult =
  | { readonly ok: true; readonly config: Config; readonly warnings: readonly string[] }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

type Value = string | number | boolean | readonly string[];

const byFlag: ReadonlyMap<string, Option> = new Map(
  (options as readonly Option[]).flatMap((option) => {
    const names = option.old === undefined ? [option.name] : [option.name, option.old];
    return names.map((name) => [name, option] as const);
  }),
);

/** The option a flag's spelling belongs to. */
export function findOption(flag: string): Option | undefined {
  return byFlag.get(flag);
}

/**
 * @param flags spelling (without dashes) → text as given; precedence: flag, environment, default.
 * @param environment the process environment.
 */
export function parseConfig(
  flags: Readonly<Record<string, string>>,
  environment: Readonly<Record<string, string | undefined>>,
): ConfigResult {
  const problems: ConfigProblem[] = [];
  const warnings: string[] = [];
  const values = new Map<string, Value>();
  const given = new Map<string, { shown: string; text: string }>();

  for (const [spelling, text] of Object.entries(flags)) {
    const option = byFlag.get(spelling);
    const shown = spelling.length === 1 ? `-${spelling}` : `--${spelling}`;
    if (option === undefined) {
      problems.push({ flag: shown, value: text, allowed: undefined });
    } else if (given.has(option.name)) {
      problems.push({ flag: shown, value: text, allowed: `one of its spellings, not both` });
    } else {
      given.set(option.name, { shown, text });
    }
  }
  for (const option of options) {
    const variable = environmentName(option);
    const text = environment[variable];
    if (text !== undefined && text !== '' && !given.has(option.name)) {
      given.set(option.name, { shown: variable, text });
    }
  }
  // The replaced system's own variable; only this exact value turned it on.
  if (environment['FORCENAMESPACED'] === 'true' && !given.has('force-namespaced')) {
    given.set('force-namespaced', { shown: 'FORCENAMESPACED', text: 'true' });
  }

  for (const option of options as readonly Option[]) {
    const entry = given.get(option.name);
    if (entry === undefined) {
      values.set(option.name, option.default);
      continue;
    }
    const parsed = parseValue(option, entry.text);
    if (parsed.ok) {
      values.set(option.name, parsed.value);
      if (option.noEffect !== undefined) {
        warnings.push(`${entry.shown} has no effect: ${option.noEffect}`);
      }
    } else {
      problems.push({ flag: entry.shown, value: entry.text, allowed: parsed.allowed });
    }
  }

  if (!given.has('node')) {
    problems.push({ flag: '--node', value: undefined, allowed: allowedText(optionOf('node')) });
  }
  if (values.get('force-namespaced') === false) {
    const shown = given.get('force-namespaced')?.shown ?? '--force-namespaced';
    problems.push({ flag: shown, value: 'false', allowed: 'true: matching is always namespaced' });
  }
  const listenPortName = values.get('redirect') === 'address' ? 'metadata-port' : 'nmi-port';
  // The redirected port is reachable by every pod; probes and metrics must not share it.
  for (const name of ['http-probe-port', 'prometheus-port']) {
    const port = values.get(name);
    if (port === undefined || port !== values.get(listenPortName)) continue;
    const shown = given.get(name)?.shown ?? `--${name}`;
    const allowed = `another port than --${listenPortName}`;
    problems.push({ flag: shown, value: String(port), allowed });
  }
  const addressLimitS = values.get('address-staleness-limit-sec');
  // A check of the watch takes a second or two, and there is one in 5 s at most.
  if (typeof addressLimitS === 'number' && addressLimitS > 0 && addressLimitS < 10) {
    const shown =
      given.get('address-staleness-limit-sec')?.shown ?? '--address-staleness-limit-sec';
    const allowed = '0 for no limit, or a whole number from 10 to 86400';
    problems.push({ flag: shown, value: String(addressLimitS), allowed });
  }
  // A port beyond 65535, an address with a part beyond 255: nothing that a pattern sees.
  const authority = values.get('entra-authority');
  if (typeof authority === 'string' && authority !== '' && !URL.canParse(authority)) {
    const shown = given.get('entra-authority')?.shown ?? '--entra-authority';
    problems.push({
      flag: shown,
      value: authority,
      allowed: allowedText(optionOf('entra-authority')),
    });
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, config: build(values, environment), warnings };
}

/** One line for a person. */
export function renderProblem(problem: ConfigProblem): string {
  if (problem.allowed === undefined)
    return `${problem.flag} is an unknown flag; see nmi run --help`;
  const value = problem.value === undefined ? 'is missing' : `has the value "${problem.value}"`;
  return `${problem.flag} ${value}; allowed: ${problem.allowed}`;
}

/** What an option takes, in words. */
export function allowedText(option: Option): string {
  switch (option.type) {
    case 'boolean':
      return 'true or false';
    case 'integer':
      return `a whole number from ${option.min} to ${option.max}`;
    case 'ip':
      return 'an IPv4 address';
    case 'choice':
      return option.choices.join(', ');
    case 'list':
      return `${option.items.allowed}, comma separated`;
    case 'string':
      return option.pattern?.allowed ?? 'any text';
  }
}

type ParsedValue =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly allowed: string };

function parseValue(option: Option, text: string): ParsedValue {
  const wrong: ParsedValue = { ok: false, allowed: allowedText(option) };
  switch (option.type) {
    case 'boolean':
      // What Go's strconv.ParseBool takes, since existing manifests were written for it.
      if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return { ok: true, value: true };
      if (/^(?:0|f|F|FALSE|false|False)$/.test(text)) return { ok: true, value: false };
      return wrong;
    case 'integer': {
      if (!/^[+-]?\d{1,15}$/.test(text)) return wrong;
      const value = Number(text);
      return value >= option.min && value <= option.max ? { ok: true, value } : wrong;
    }
    case 'ip':
      return isIPv4(text) ? { ok: true, value: text } : wrongIp(text, wrong);
    case 'choice': {
      const value = text.toLowerCase();
      const reason = option.refused?.[value];
      if (reason !== undefined) {
        return { ok: false, allowed: `${allowedText(option)} (${reason})` };
      }
      return option.choices.includes(value) ? { ok: true, value } : wrong;
    }
    case 'list': {
      const items = text.split(',').map((item) => item.trim());
      const known = items.filter((item) => item !== '');
      if (!known.every((item) => option.items.isRight(item))) return wrong;
      return { ok: true, value: [...new Set(known)] };
    }
    case 'string':
      if (option.pattern !== undefined && !option.pattern.test.test(text)) return wrong;
      return { ok: true, value: text };
  }
}

function wrongIp(text: string, wrong: ParsedValue): ParsedValue {
  if (isIP(text) !== 6) return wrong;
  return { ok: false, allowed: 'an IPv4 address (the metadata service has no IPv6 address)' };
}

function optionOf(name: string): Option {
  const option = byFlag.get(name);
  if (option === undefined) throw new Error(`the options table has no row "${name}"`);
  return option;
}

function build(
  values: ReadonlyMap<string, Value>,
  environment: Readonly<Record<string, string | undefined>>,
): Config {
  const text = (name: string) => ofType(values, name, isText);
  const number = (name: string) => ofType(values, name, isNumber);
  const flag = (name: string) => ofType(values, name, isFlag);
  const choice = <T extends string>(name: string, choices: readonly T[]): T => {
    const value = text(name);
    const found = choices.find((each) => each === value);
    if (found === undefined) throw new TypeError(`"${name}" has a choice nobody reads`);
    return found;
  };
  const redirect = choice('redirect', redirectChoices);
  const listed = ofType(values, 'allow-metadata', isList);
  const authorities = parseAuthorityHosts(ofType(values, 'authority-hosts', isList));
  if (!authorities.ok) throw new TypeError('the option takes what its reader refuses');
  const kubeconfigPath = text('kubeconfig') || environment['KUBECONFIG'];
  return Object.freeze({
    node: text('node'),
    kubeconfigPath: kubeconfigPath === '' ? undefined : kubeconfigPath,
    allowKubenet: flag('allow-network-plugin-kubenet'),
    kubeletConfigPath: text('kubelet-config'),
    customUserAgent: text('custom-user-agent'),
    watchStalenessLimitMs: number('watch-staleness-limit-sec') * 1000,
    addressStalenessLimitMs: number('address-staleness-limit-sec') * 1000,
    // The address mode rewrites nothing: the agent listens where pods dial.
    listenIp: text(redirect === 'address' ? 'metadata-ip' : 'nmi-listen-address'),
    listenPort: number(redirect === 'address' ? 'metadata-port' : 'nmi-port'),
    hostToken: flag('enable-host-token'),
    probePort: number('http-probe-port'),
    metricsPort: number('prometheus-port'),
    explainSocket: text('explain-socket'),
    metadataIp: text('metadata-ip'),
    metadataPort: number('metadata-port'),
    imdsTimeoutMs: number('imds-timeout-ms'),
    cloud: choice('cloud', cloudNames),
    entraAuthority: text('entra-authority'),
    federationAudience: text('federation-audience'),
    authorityHosts: authorities.hosts,
    entraCaFile: text('entra-ca-file'),
    entraTimeoutMs: number('entra-timeout-ms'),
    workloadIdentity: flag('workload-identity'),
    workloadIdentityTenant: text('workload-identity-tenant'),
    tokenCacheSize: number('token-cache-size'),
    redirect,
    iptablesBackend: choice('iptables-backend', backendChoices),
    cgroupRoot: text('cgroup-root'),
    bpfPinFolder: text('bpf-pin-folder'),
    podUid: text('pod-uid'),
    hostNetwork: choice('host-network', hostNetworkChoices),
    metadataGuard: flag('metadata-guard'),
    redirectIntervalMs: number('ipt-update-interval-sec') * 1000,
    metadataHeaderRequired: flag('metadata-header-required'),
    blockInstanceMetadata: flag('block-instance-metadata'),
    allowedAreas: metadataAreas.filter((area) => listed.includes(area)),
    strictIdentity: flag('strict-identity'),
    bindingGraceMs: number('binding-grace-sec') * 1000,
    lateObjectWaitMs: number('late-object-wait-ms'),
    logFormat: choice('log-format', logFormats),
    logLevel: logLevel(choice('log-level', logLevels), number('v')),
    startupTaint: text('startup-taint'),
    drainTimeoutMs: number('drain-timeout-sec') * 1000,
  });
}

/** The table and this file disagree where this throws: a bug, not the user's. */
function ofType<T extends Value>(
  values: ReadonlyMap<string, Value>,
  name: string,
  isRight: (value: Value) => value is T,
): T {
  const value = values.get(name);
  if (value === undefined || !isRight(value)) throw new TypeError(`option "${name}" is mistyped`);
  return value;
}

const isText = (value: Value): value is string => typeof value === 'string';
const isNumber = (value: Value): value is number => typeof value === 'number';
const isFlag = (value: Value): value is boolean => typeof value === 'boolean';
const isList = (value: Value): value is readonly string[] => Array.isArray(value);

function logLevel(level: Config['logLevel'], verbosity: number): Config['logLevel'] {
  if (level !== 'info') return level;
  if (verbosity >= 6) return 'trace';
  return verbosity >= 4 ? 'debug' : 'info';
}
