/**
 * The clients under test and the known behavior of each. The tests check it, and the README's table
 * is made from it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Size } from '../../runner/kinds.ts';

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

export const clients: readonly Client[] = [
  {
    key: 'azure-cli',
    name: 'azure-cli',
    version: pythonVersion('azure-cli.txt', 'azure-cli'),
    kit: 'azure-cli',
    program: 'azure-cli.ts',
    args: ['kind'],
    ids: everyId,
    explains: 'always',
    signIn: 1,
  },
  {
    key: 'azure-cli-2.64',
    name: 'azure-cli',
    version: pythonVersion('azure-cli-2.64.txt', 'azure-cli'),
    kit: 'azure-cli-2.64',
    size: 'long',
    program: 'azure-cli.ts',
    args: ['username'],
    ids: everyId,
    retries: true,
    explains: 'never',
    signIn: 1,
    guesses: true,
  },
  {
    key: 'azure-identity',
    name: '@azure/identity',
    version: npmVersion('@azure/identity'),
    kit: 'npm',
    program: 'azure-identity.ts',
    args: ['@azure/identity'],
    ids: everyId,
    chainIds: ['client', 'resource'],
    chainProbesAgain: true,
    caches: true,
    retries: true,
    explains: 'always',
  },
  {
    key: 'azure-identity-4.2',
    name: '@azure/identity',
    version: npmVersion('identity-4.2'),
    kit: 'npm',
    program: 'azure-identity.ts',
    args: ['identity-4.2'],
    ids: ['client', 'resource'],
    chainIds: ['client', 'resource'],
    probes: true,
    caches: true,
    retries: true,
    explains: 'always',
  },
  {
    key: 'azure-identity-2.0',
    name: '@azure/identity',
    version: npmVersion('identity-2.0'),
    kit: 'npm',
    program: 'azure-identity.ts',
    args: ['identity-2.0'],
    ids: ['client'],
    chainIds: ['client'],
    probes: true,
    retries: true,
    explains: 'outside-chain',
  },
  {
    key: 'msal-node',
    name: '@azure/msal-node',
    version: npmVersion('@azure/msal-node'),
    kit: 'npm',
    program: 'msal-node.ts',
    ids: everyId,
    caches: true,
    retries: true,
    explains: 'always',
  },
  {
    key: 'azure-identity-python',
    name: 'azure-identity',
    language: 'Python',
    version: pythonVersion('requirements.txt', 'azure-identity'),
    kit: 'python',
    program: 'azure_identity_client.py',
    ids: everyId,
    chainIds: ['client'],
    caches: true,
    retries: true,
    explains: 'always',
  },
  {
    key: 'msal-python',
    name: 'msal',
    language: 'Python',
    version: pythonVersion('requirements.txt', 'msal'),
    kit: 'python',
    program: 'msal_client.py',
    ids: everyId,
    caches: true,
    explains: 'always',
  },
  {
    key: 'azidentity',
    name: 'azidentity',
    language: 'Go',
    version: goVersion('azidentity'),
    kit: 'go',
    args: ['azidentity'],
    ids: everyId,
    chainIds: ['client'],
    caches: true,
    retries: true,
    explains: 'always',
  },
  {
    key: 'msal-go',
    name: 'microsoft-authentication-library-for-go',
    language: 'Go',
    version: goVersion('microsoft-authentication-library-for-go'),
    kit: 'go',
    args: ['msal'],
    ids: everyId,
    caches: true,
    retries: true,
    explains: 'always',
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
