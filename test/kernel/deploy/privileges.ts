/**
 * The privileges of each process, by redirect: the table of `deploy/README.md`; its test removes
 * them one by one. Nothing else is needed: the processes run with exactly these sets.
 */

/** As in a manifest, without `CAP_`. */
export type Capability = 'NET_ADMIN' | 'NET_RAW' | 'BPF';
export type Command = 'nmi run' | 'nmi redirect run';

export interface Need {
  readonly capability: Capability;
  readonly why: string;
  /** The log's message without it. */
  readonly says: Readonly<Record<Command, string>>;
}

export interface Privileges {
  readonly commands: readonly Command[];
  readonly flags: readonly string[];
  readonly needs: readonly Need[];
}

const both: readonly Command[] = ['nmi run', 'nmi redirect run'];
const noAddress = 'the listen address could not be brought up: ip link add: ';

function netAdmin(why: string, kernelSideSays: string): Need {
  const says = { 'nmi run': noAddress, 'nmi redirect run': kernelSideSays };
  return { capability: 'NET_ADMIN', why, says };
}

function alike(capability: Capability, why: string, text: string): Need {
  return { capability, why, says: { 'nmi run': text, 'nmi redirect run': text } };
}

const netRaw = alike(
  'NET_RAW',
  'legacy iptables speaks by a raw socket',
  'NOT_PERMITTED: write rules: ',
);
const bpf = alike('BPF', 'loading programs, making their maps', 'NOT_PERMITTED: load: ');

export const privileges: readonly Privileges[] = [
  {
    commands: both,
    flags: ['--redirect=ebpf', '--iptables-backend=nft'],
    needs: [
      netAdmin('attaching programs; link, rules and chains', 'NOT_PERMITTED: read rules: '),
      bpf,
    ],
  },
  {
    commands: both,
    flags: ['--redirect=ebpf', '--iptables-backend=legacy'],
    needs: [
      netAdmin('attaching programs; link, rules and chains', 'NOT_PERMITTED: ip link add: '),
      bpf,
      netRaw,
    ],
  },
  {
    commands: both,
    flags: ['--redirect=iptables', '--iptables-backend=nft'],
    needs: [netAdmin('link, rules and chains', 'NOT_PERMITTED: read rules: ')],
  },
  {
    commands: both,
    flags: ['--redirect=iptables', '--iptables-backend=legacy'],
    needs: [netAdmin('link, rules and chains', 'NOT_PERMITTED: ip link add: '), netRaw],
  },
  {
    commands: ['nmi run'],
    flags: ['--redirect=none', '--nmi-listen-address=127.0.0.1'],
    needs: [],
  },
];

/** For `deploy/README.md`. */
export function renderPrivileges(rows: readonly Privileges[]): string {
  const lines = rows.flatMap(({ commands, flags, needs }) =>
    needs.map(({ capability, why, says }) => {
      const told = [...new Set(commands.map((command) => `\`${says[command].trim()}\``))];
      const words = [
        commands.map((command) => `\`${command}\``).join(', '),
        `\`${flags.join(' ')}\``,
      ];
      return `| ${[...words, capability, why, told.join(' or ')].join(' | ')} |`;
    }),
  );
  const head = [
    '| process | flags | capability | for | without it the log says |',
    '| --- | --- | --- | --- | --- |',
  ];
  return [...head, ...lines].join('\n');
}
