/**
 * The clients under test and the known behavior of each. The tests check it, and the table of
 * docs/clients.md is made from it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Size } from '../../../runner/kinds.ts';
import type { ArmPlace } from './client-lab.ts';

const clientsFolder = join(import.meta.dirname, '..');

export type IdKind = 'client' | 'resource' | 'object';

/** The contents of one installation. */
export type Kit = 'npm' | 'python' | 'go' | 'azure-cli' | 'azure-cli-2.64' | 'curl';

export interface Client {
  /** Its pods are named after it. */
  readonly key: string;
  /** The package name in its registry. */
  readonly name: string;
  readonly language?: 'Go' | 'Python';
  readonly version: string;
  readonly kit: Kit;
  /** A file in `programs`; undefined: the program of the kit. */
  readonly program?: string;
  /** Arguments before the job. */
  readonly args?: readonly string[];
  readonly ids: readonly IdKind[];
  /** It has a default credential chain, which accepts these IDs, or none. */
  readonly chainIds?: readonly IdKind[];
  /** Sends a probe without the `Metadata` header before its first request. */
  readonly probes?: true;
  /** Its chain probes before each call, even when it has a token. */
  readonly chainProbesAgain?: true;
  /** Reuses a token from its own cache. */
  readonly caches?: true;
  /** Retries by itself after a 503. */
  readonly retries?: true;
  /** Shows the agent's error text: always, not at the end of a chain, or never. */
  readonly explains: 'always' | 'outside-chain' | 'never';
  /** Signs in first, which takes this many token requests for Azure Resource Manager. */
  readonly signIn?: number;
  /** Only in a run of this size: a start of the Azure CLI takes three seconds. */
  readonly size?: Size;
  /** Takes ids without their kind: as a client id first and, after a 400, as an object id. */
  readonly guesses?: true;
}

const everyId = ['client', 'resource', 'object'] as const;
/** What most clients do. */
const usual = { ids: everyId, caches: true, retries: true, explains: 'always' } as const;
const azureIdentity = {
  kit: 'npm',
  name: '@azure/identity',
  program: 'azure-identity.ts',
} as const;
const azureCli = { name: 'azure-cli', program: 'azure-cli.ts', ids: everyId, signIn: 1 } as const;
const python = { kit: 'python', language: 'Python' } as const;
const go = { kit: 'go', language: 'Go' } as const;

export const clients: readonly Client[] = [
  {
    ...azureCli,
    key: 'azure-cli',
    version: pythonVersion('azure-cli.txt', 'azure-cli'),
    kit: 'azure-cli',
    args: ['kind'],
    explains: 'always',
  },
  {
    ...azureCli,
    key: 'azure-cli-2.64',
    version: pythonVersion('azure-cli-2.64.txt', 'azure-cli'),
    kit: 'azure-cli-2.64',
    size: 'long',
    args: ['username'],
    retries: true,
    explains: 'never',
    guesses: true,
  },
  {
    ...usual,
    ...azureIdentity,
    key: 'azure-identity',
    version: npmVersion('@azure/identity'),
    args: ['@azure/identity'],
    chainIds: ['client', 'resource'],
    chainProbesAgain: true,
  },
  {
    ...usual,
    ...azureIdentity,
    key: 'azure-identity-4.2',
    version: npmVersion('identity-4.2'),
    args: ['identity-4.2'],
    ids: ['client', 'resource'],
    chainIds: ['client', 'resource'],
    probes: true,
  },
  {
    ...azureIdentity,
    key: 'azure-identity-2.0',
    version: npmVersion('identity-2.0'),
    args: ['identity-2.0'],
    ids: ['client'],
    chainIds: ['client'],
    probes: true,
    retries: true,
    explains: 'outside-chain',
  },
  {
    ...usual,
    key: 'msal-node',
    name: '@azure/msal-node',
    version: npmVersion('@azure/msal-node'),
    kit: 'npm',
    program: 'msal-node.ts',
  },
  {
    ...usual,
    ...python,
    key: 'azure-identity-python',
    name: 'azure-identity',
    version: pythonVersion('requirements.txt', 'azure-identity'),
    program: 'azure_identity_client.py',
    chainIds: ['client'],
  },
  {
    ...python,
    key: 'msal-python',
    name: 'msal',
    version: pythonVersion('requirements.txt', 'msal'),
    program: 'msal_client.py',
    ids: everyId,
    caches: true,
    explains: 'always',
  },
  {
    ...usual,
    ...go,
    key: 'azidentity',
    name: 'azidentity',
    version: goVersion('azidentity'),
    args: ['azidentity'],
    chainIds: ['client'],
  },
  {
    ...usual,
    ...go,
    key: 'msal-go',
    name: 'microsoft-authentication-library-for-go',
    version: goVersion('microsoft-authentication-library-for-go'),
    args: ['msal'],
  },
  {
    key: 'curl',
    name: 'curl',
    version: 'any',
    kit: 'curl',
    program: 'curl.ts',
    ids: everyId,
    explains: 'always',
  },
];

/** Program and arguments that start a client installed in a folder; the job follows. */
export function renderCommand(
  { kit, program = '', args = [] }: Client,
  folder: string,
  arm: ArmPlace,
): readonly [string, ...string[]] {
  const file = join(clientsFolder, 'programs', program);
  const ways: Readonly<Record<Kit, readonly [string, ...string[]]>> = {
    npm: [process.execPath, file, folder, ...args],
    python: [join(folder, 'bin/python'), file, ...args],
    go: [join(folder, 'client'), ...args],
    'azure-cli': [process.execPath, file, folder, ...args, arm.url, arm.caFile],
    'azure-cli-2.64': [process.execPath, file, folder, ...args, arm.url, arm.caFile],
    curl: [process.execPath, file, ...args],
  };
  return ways[kit];
}

function npmVersion(dependency: string): string {
  const { dependencies } = JSON.parse(readLock('npm/package.json')) as {
    readonly dependencies: Readonly<Record<string, string>>;
  };
  return found(dependencies[dependency]?.replace(/^npm:.+@/, ''), dependency);
}

function pythonVersion(file: string, name: string): string {
  return found(new RegExp(`^${name}==(\\S+)$`, 'm').exec(readLock(`python/${file}`))?.[1], name);
}

function goVersion(module: string): string {
  return found(new RegExp(`/${module} v(\\S+)$`, 'm').exec(readLock('go/go.mod'))?.[1], module);
}

function readLock(file: string): string {
  return readFileSync(join(clientsFolder, file), 'utf8');
}

function found(version: string | undefined, name: string): string {
  if (version === undefined) throw new TypeError(`no version of ${name} is locked`);
  return version;
}
