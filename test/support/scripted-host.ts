/** A node made of scripted answers, for redirect code that runs tools. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { missingTool, type Host, type ToolResult } from '../../src/redirect/host/command.ts';
import type { FlowCut } from '../../src/redirect/native/connections.ts';
import { RedirectError } from '../../src/redirect/redirect.ts';

export const ok = (stdout = ''): ToolResult => ({
  kind: 'exited',
  exitCode: 0,
  stdout,
  stderr: '',
});

export const refuse = (exitCode: number, stderr: string): ToolResult => ({
  kind: 'exited',
  exitCode,
  stdout: '',
  stderr,
});

export type Answer = (args: string, input: string) => ToolResult;

export interface ScriptedHost extends Host {
  /** Every run of a tool, with its arguments. */
  readonly log: string[];
  readonly cuts: FlowCut[];
}

export interface ScriptedOptions {
  /** Contents by path; any other path cannot be read. */
  readonly files?: Readonly<Record<string, string>>;
  /** Default: this kernel tracks no connections. */
  readonly cutFlows?: () => number;
  /** Default: it cannot be read. */
  readonly ruleGeneration?: () => number | undefined;
  /** Default: no address is. */
  readonly isLocal?: (ip: string) => boolean;
}

/** @param answers by tool; one without an answer is not on the PATH. */
export function scripted(
  answers: Readonly<Record<string, Answer>>,
  {
    files = { '/proc/net/ip_tables_names': '' },
    cutFlows,
    ruleGeneration,
    isLocal = () => false,
  }: ScriptedOptions = {},
): ScriptedHost {
  const log: string[] = [];
  const cuts: FlowCut[] = [];
  return {
    log,
    cuts,
    run: (tool, args, input) => {
      log.push([tool, ...args].join(' '));
      const answer = answers[tool]?.(args.join(' '), input ?? '');
      return Promise.resolve(answer ?? missingTool);
    },
    read: (path) => Promise.resolve(files[path]),
    ruleGeneration: () => Promise.resolve(ruleGeneration?.()),
    isLocal: (ip) => Promise.resolve(isLocal(ip)),
    cutFlows: async (cut) => {
      cuts.push(cut);
      if (cutFlows !== undefined) return cutFlows();
      throw new RedirectError('UNSUPPORTED', 'list flows', 'Protocol not supported');
    },
  };
}

/** The host with changes that take a turn. `steps` gets the beginning and the end of each. */
export function takingTurns(host: Host, steps: string[]): Host {
  const take = async <T>(step: string, change: () => Promise<T>): Promise<T> => {
    steps.push(`${step} begins`);
    await nextTurn();
    steps.push(`${step} ends`);
    return change();
  };
  return {
    ...host,
    run: (tool, args, input) => {
      const run = () => host.run(tool, args, input);
      if (tool.endsWith('-restore')) return take(tool, run);
      const isChange = tool === 'ip' && !args.includes('show');
      return isChange ? take(['ip', ...args.slice(0, 2)].join(' '), run) : run();
    },
    cutFlows: (cut) => take('cut flows', () => host.cutFlows(cut)),
  };
}

export const emptyNat = '*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n';

export const goodNat = `*nat
:PREROUTING ACCEPT [0:0]
:nmi-metadata - [0:0]
-A PREROUTING -j nmi-metadata
-A nmi-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip --hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0
-A nmi-metadata -d 169.254.25.79/32 -p tcp -m tcp --dport 2579:2580 -m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip --hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0
-A nmi-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579
-A nmi-metadata -j RETURN
COMMIT
`;

const goodLinks = JSON.stringify([
  {
    ifname: 'nmi0',
    flags: ['UP'],
    linkinfo: { info_kind: 'dummy' },
    addr_info: [{ family: 'inet', local: '169.254.25.79' }],
  },
]);

export const goodRules = [
  '0:\tfrom all lookup local',
  '79:\tfrom all to 169.254.169.254 iif lo goto 81',
  '80:\tfrom all to 169.254.169.254 prohibit',
  '81:\tfrom all to 169.254.169.254 nop',
  '82:\tfrom 169.254.169.254 blackhole',
  '32766:\tfrom all lookup main',
  '',
].join('\n');

/** Link, address and guard are as they should be. */
export const goodIp: Answer = (args) => {
  if (args.includes('addr show')) return ok(goodLinks);
  return args.includes('rule show') ? ok(goodRules) : ok();
};
