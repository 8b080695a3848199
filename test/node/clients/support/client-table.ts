/** The table of clients in docs/clients.md, made from what the tests declare and verify. */
import { clients, type Client, type IdKind } from './client-matrix.ts';

const head = [
  'client',
  'version',
  'identity by',
  'default chain by',
  'five tokens of one resource',
  'pod without an identity',
  'upstream down, then back',
] as const;

/** Markdown. Every cell is derived from the matrix that the tests use. */
export function clientTable(): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(head),
    `|${head.map(() => ' --- |').join('')}`,
    ...clients.map(rowOf).map(line),
  ].join('\n');
}

function rowOf(client: Client): readonly string[] {
  const { name, language, version, ids, chainIds } = client;
  return [
    `\`${name}\`${language === undefined ? '' : ` (${language})`}`,
    version,
    listIds(ids),
    chainIds === undefined ? '' : listIds(chainIds),
    tellCost(client),
    tellRefusal(client),
    client.retries === true ? 'its own retries get the token' : 'the next call gets the token',
  ];
}

function listIds(ids: readonly IdKind[]): string {
  return ['none', ...ids].join(', ');
}

function tellCost({ caches, chainProbesAgain, signIn }: Client): string {
  if (signIn !== undefined) return 'a request for each command';
  const probes = chainProbesAgain === true ? '; 5 probes more in the chain' : '';
  return caches === true ? `1 request${probes}` : '5 requests';
}

function tellRefusal({ explains }: Client): string {
  const said: Readonly<Record<Client['explains'], string>> = {
    always: 'the reason and the fix',
    'outside-chain': 'the reason and the fix; in the chain, its last member’s error',
    never: 'the client’s own words',
  };
  return `1 request; ${said[explains]}`;
}
