/**
 * The kernel state of a test bed's node: rules, policy routing and links as comparable text; and
 * the verbs of `nmi redirect` in it.
 */
import { inCgroup } from '../fabric/cgroups.ts';
import assert from 'node:assert/strict';
import type { RunResult, TestBed } from './test-bed.ts';

/** Equal texts mean equal state: packet counters and the time of reading are removed. */
export interface NodeState {
  /** All tables of both iptables. */
  readonly rules: string;
  readonly routing: string;
  /** Names, one a line. */
  readonly links: string;
}

const ownChain = 'nmi-metadata';
const ownRule = new RegExp(`^(?::${ownChain} |-A ${ownChain} |-A PREROUTING -j ${ownChain}$)`);
const tooFast =
  '-m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip --hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0';
const ownLimit = `-A ${ownChain} ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 ${tooFast}`;
/** Not behind programs, which have a limit of their own. */
const ownDirectLimit = `-A ${ownChain} -d 169.254.25.79/32 -p tcp -m tcp --dport 2579:2580 ${tooFast}`;
const ownRedirect = [
  `-A ${ownChain} ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579`,
  `-A ${ownChain} -j RETURN`,
];
const ownChains = [
  [ownLimit, ...ownRedirect],
  [ownLimit, ownDirectLimit, ...ownRedirect],
].map((rules) => rules.join('\n'));
const ownPreferences = /^(?:78|79|80|81|82):/;

export async function readNode(testBed: TestBed): Promise<NodeState> {
  const [nft, legacy, routing, links] = await Promise.all([
    succeed(testBed, 'iptables-nft-save'),
    // Without `-t` it prints the existing tables and creates none.
    succeed(testBed, 'iptables-legacy-save'),
    succeed(testBed, 'ip', '-4', 'rule'),
    succeed(testBed, 'ip', '-br', 'link'),
  ]);
  return {
    rules: `${plainRules(nft)}\n${plainRules(legacy)}`,
    routing,
    // The state beside a name changes by itself while a new port comes up.
    links: links.replaceAll(/ .*$/gm, ''),
  };
}

/** The rules and routing that do not belong to the agent. */
export function foreignPart(state: NodeState): string {
  const rules = state.rules.split('\n').filter((line) => !ownRule.test(line));
  const routing = state.routing.split('\n').filter((line) => !ownPreferences.test(line));
  return [...rules, ...routing].join('\n');
}

/** Chain, jump and guard, exactly as the agent installs them. */
export function hasRedirect({ rules, routing }: NodeState): boolean {
  const lines = rules.split('\n');
  const chain = lines.filter((line) => line.startsWith(`-A ${ownChain} `));
  const firstJump = lines.find((line) => line.startsWith('-A PREROUTING '));
  return (
    ownChains.includes(chain.join('\n')) &&
    firstJump === `-A PREROUTING -j ${ownChain}` &&
    ['79', '80', '81', '82'].every((pref) => new RegExp(`^${pref}:`, 'm').test(routing))
  );
}

/** The value of a start flag of this test bed's agent. */
export function flagOf(testBed: TestBed, name: string): string {
  const flag = testBed.environment.agentFlags.find((each) => each.startsWith(`--${name}=`));
  assert.ok(flag !== undefined);
  return flag.slice(flag.indexOf('=') + 1);
}

/** The value of an environment variable of this test bed's agent. */
export function variableOf(testBed: TestBed, name: string): string {
  const value = testBed.environment.agentEnvironment[name];
  assert.ok(value !== undefined);
  return value;
}

export function runRedirect(
  testBed: TestBed,
  action: 'install' | 'verify' | 'remove',
  flags: readonly string[] = [],
): Promise<RunResult> {
  const [program, ...leading] = testBed.environment.agentCommand;
  testBed.log(`node: nmi redirect ${action}`);
  const variables = Object.entries(testBed.environment.agentEnvironment);
  const words = [
    ...['env', ...variables.map(([name, value]) => `${name}=${value}`)],
    ...[program, ...leading],
    ...['redirect', action],
    ...testBed.environment.redirectFlags,
    ...flags,
  ];
  // As in the agent's container: the exemption is for the calling process's cgroup.
  const cgroup = testBed.environment.agentCgroup();
  const [first = '', ...rest] = cgroup === undefined ? words : inCgroup(cgroup, words);
  return testBed.environment.runInNode(first, rest);
}

/** A node that never had an agent: none runs, and pods reach the real service. */
export async function makeBare(testBed: TestBed): Promise<void> {
  await testBed.agent.stop();
  const { code, stderr } = await runRedirect(testBed, 'remove');
  assert.equal(code, 0, `nmi redirect remove failed: ${stderr}`);
}

/** Runs a tool in the node, requires success, and returns its output. */
export async function succeed(
  testBed: TestBed,
  command: string,
  ...args: string[]
): Promise<string> {
  return feed(testBed, undefined, command, ...args);
}

/** Like `succeed`, with stdin. */
export async function feed(
  testBed: TestBed,
  input: string | undefined,
  command: string,
  ...args: string[]
): Promise<string> {
  const { code, stdout, stderr } = await testBed.environment.runInNode(command, args, input);
  assert.equal(code, 0, `${command} ${args.join(' ')} failed: ${stderr}`);
  return stdout;
}

function plainRules(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/\[\d+:\d+\]/, '[]'))
    .join('\n');
}
