/** Parses flags and environment variables. Returns all problems together. */
import { nearest } from '../../base/nearest.ts';
import { defaultTarget } from '../../redirect/target.ts';
import {
  environmentName,
  environmentNames,
  findIgnored,
  findOption,
  flagNames,
  options,
  type Config,
  type Option,
} from './options.ts';

export type { Config };

export type Environment = Readonly<Record<string, string | undefined>>;

/** Problems and warnings are sentences without a full stop. */
export type ConfigResult =
  | { readonly ok: true; readonly config: Config; readonly warnings: readonly string[] }
  | { readonly ok: false; readonly problems: readonly string[] };

interface Given {
  readonly shown: string;
  readonly text: string;
}

type GivenTexts = ReadonlyMap<Option, Given>;

/** @param flags spelling (without dashes) to text. Precedence: flag, environment, default. */
export function parseConfig(
  flags: Readonly<Record<string, string>>,
  environment: Environment,
): ConfigResult {
  const problems: string[] = [];
  const warnings = unknownVariables(environment);
  const given = new Map<Option, Given>();

  for (const option of options) {
    const entry = fromEnvironment(option, environment);
    if (entry !== undefined) given.set(option, entry);
  }
  const flagged = new Set<Option>();
  for (const [spelling, text] of Object.entries(flags)) {
    const shown = withDashes(spelling);
    const option = findOption(spelling);
    const ignored = findIgnored(spelling);
    if (ignored !== undefined) {
      warnings.push(`${shown} has no effect: ${ignored.reason}`);
    } else if (option === undefined) {
      problems.push(`unknown flag ${shown}${suggestFlag(spelling)}; see nmi --help`);
    } else if (flagged.has(option)) {
      problems.push(wrongValue({ shown, text }, 'one of its spellings, not both'));
    } else {
      flagged.add(option);
      given.set(option, { shown, text });
    }
  }

  const values: Record<string, unknown> = {};
  for (const option of options) {
    const entry = given.get(option);
    const value = option.type.parse(entry?.text ?? option.default);
    const { allowed, removed } = option.type;
    if (value !== undefined) values[option.key] = value;
    else if (entry !== undefined) {
      const isRemoved = removed?.choice === entry.text.toLowerCase();
      problems.push(wrongValue(entry, isRemoved ? removed.allowed : allowed));
    } else problems.push(`${withDashes(option.name)} is missing; allowed: ${allowed}`);
  }
  if (!isComplete(values) || problems.length > 0) return { ok: false, problems };
  if (leadsNowhere(values)) {
    warnings.push(
      `--nmi-listen-address has the value "${values.listenIp}", which each pod has itself, so no ` +
        `redirect can lead there: the agent listens on ${defaultTarget.listenIp}`,
    );
  }
  const config = finish(values);
  const conflicts = [...portCollisions(config, given), ...addressCollisions(config, given)];
  return conflicts.length > 0 ? { ok: false, problems: conflicts } : { ok: true, config, warnings };
}

/** True because each row has set its key to the value parsed by its type. */
function isComplete(values: object): values is Config {
  return options.every(({ key }) => key in values);
}

function fromEnvironment(option: Option, environment: Environment): Given | undefined {
  for (const shown of environmentNames(option)) {
    const text = environment[shown];
    if (text !== undefined && text !== '' && !isServiceLink(shown, text)) return { shown, text };
  }
  return undefined;
}

/**
 * A listen address that a redirect cannot lead to, such as the default of the replaced system: eBPF
 * would send pods to their own loopback, and iptables needs a kernel setting that hosts should not have.
 */
function leadsNowhere({ redirect, listenIp }: Config): boolean {
  return redirect !== 'none' && listenIp.startsWith('127.');
}

function finish(config: Config): Config {
  const { logLevel, verbosity } = config;
  const level = verbosity >= 6 ? 'trace' : verbosity >= 4 ? 'debug' : logLevel;
  return Object.freeze({
    ...config,
    ...(leadsNowhere(config) ? { listenIp: defaultTarget.listenIp } : {}),
    logLevel: logLevel === 'info' ? level : logLevel,
  });
}

/** The kubelet probes the pod's addresses, so a port of both pages is open on all of them. */
function addressCollisions(config: Config, given: GivenTexts): readonly string[] {
  const { metricsAddress, metricsPort, probePort } = config;
  if (metricsAddress === '' || metricsPort === 0 || metricsPort !== probePort) return [];
  const allowed = 'nothing while --prometheus-port equals --http-probe-port';
  return [wrongValue(shownOf('prometheus-address', metricsAddress, given), allowed)];
}

/** The redirected port is reachable by every pod; probes and metrics must not share it. */
function portCollisions(config: Config, given: GivenTexts): readonly string[] {
  return (['http-probe-port', 'prometheus-port'] as const).flatMap((name) => {
    const port = name === 'http-probe-port' ? config.probePort : config.metricsPort;
    if (port !== config.listenPort && port !== config.listenPort + 1) return [];
    const allowed = 'another port than --nmi-port and the next one';
    return [wrongValue(shownOf(name, String(port), given), allowed)];
  });
}

function shownOf(flag: string, text: string, given: GivenTexts): Given {
  const option = findOption(flag);
  return (option && given.get(option)) ?? { shown: `--${flag}`, text };
}

function wrongValue({ shown, text }: Given, allowed: string): string {
  return `${shown} has the value "${text}"; allowed: ${allowed}`;
}

function withDashes(spelling: string): string {
  return spelling.length === 1 ? `-${spelling}` : `--${spelling}`;
}

function suggestFlag(spelling: string): string {
  const found = nearest(spelling, flagNames);
  return found === undefined ? '' : `; did you mean ${withDashes(found)}?`;
}

const variableNames = new Set(options.flatMap(environmentNames));

function unknownVariables(environment: Environment): string[] {
  const ownNames = options.map(environmentName);
  return Object.entries(environment)
    .filter(([name, text]) => name.startsWith('NMI_') && !variableNames.has(name) && text !== '')
    .filter(([name, text = '']) => !isServiceLink(name, text))
    .map(([name]) => {
      const found = nearest(name, ownNames);
      return `${name} is unknown${found === undefined ? '' : `; did you mean ${found}?`}`;
    });
}

/** A variable that Kubernetes sets in pods for a Service named `nmi` or `nmi-…`. */
function isServiceLink(name: string, text: string): boolean {
  if (/_SERVICE_(?:HOST|PORT(?:_\w+)?)$|_PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?$/.test(name))
    return true;
  return name.endsWith('_PORT') && /^(?:tcp|udp|sctp):\/\//.test(text);
}
