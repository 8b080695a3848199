/**
 * `nmi grants`: the AzureIdentityGrants that the objects of the cluster need, as YAML. It lists the
 * custom resources with its user's permissions, and writes nothing.
 */
import type { ObjectRef } from '../cache/index/objects.ts';
import { userAgent } from '../nmi/base/build-info.ts';
import { neededGrants, type ClusterObjects } from '../nmi/grants/needed-grants.ts';
import { openKubeClient } from '../nmi/kube/api/client.ts';
import { KubeError } from '../nmi/kube/api/kube-error.ts';
import { listPages, type JsonReader } from '../nmi/kube/api/list-pages.ts';
import {
  parseBinding,
  parseException,
  parseIdentity,
  parseIdentityGrant,
  type Parse,
} from '../nmi/kube/watch/parse.ts';
import type { Args } from './flags.ts';
import { renderGrants } from './grants-text.ts';
import { exitCodes, type Io } from './io.ts';

const group = '/apis/aadpodidentity.k8s.io/v1';
const pageSize = 500;
const timeoutMs = 60_000;

export async function grants(args: Args, io: Io): Promise<number> {
  const { kubeconfig } = args.flags;
  const { environment, stop } = io;
  try {
    await using client = await openKubeClient({
      kubeconfigPath: kubeconfig ?? environment['NMI_KUBECONFIG'] ?? environment['KUBECONFIG'],
      userAgent: userAgent('nmi-grants'),
      environment,
    });
    const needed = neededGrants(await readObjects(client, stop));
    const { unbound } = needed;
    if (unbound > 0) io.stderr(`${unbound} AzureIdentities without a binding left out\n`);
    if (needed.grants.length > 0) io.stdout(renderGrants(needed.grants));
    else io.stderr('every identity in use has a grant\n');
    return exitCodes.ok;
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const code = error.code === 'CONFIG' ? exitCodes.config : exitCodes.unavailable;
    return fail(io, error.message, code);
  }
}

async function readObjects(reader: JsonReader, signal: AbortSignal): Promise<ClusterObjects> {
  const list = <T extends ObjectRef>(plural: string, parse: Parse<T>) =>
    listAll(reader, `${group}/${plural}`, parse, signal);
  return {
    identities: await list('azureidentities', parseIdentity),
    bindings: await list('azureidentitybindings', parseBinding),
    exceptions: await list('azurepodidentityexceptions', parseException),
    grants: await unlessAbsent(list('azureidentitygrants', parseIdentityGrant)),
  };
}

/** Skips objects that the agent cannot use: they give no pod a token. */
async function listAll<T>(
  reader: JsonReader,
  path: string,
  parse: Parse<T>,
  signal: AbortSignal,
): Promise<readonly T[]> {
  const found: T[] = [];
  await listPages(
    reader,
    { path, query: {}, pageSize, version: '' },
    { signal, timeoutMs },
    (page) => {
      for (const item of page) {
        const parsed = parse(item);
        if (parsed.ok) found.push(parsed.value);
      }
    },
  );
  return found;
}

/** An empty list if the kind is not installed. */
async function unlessAbsent<T>(listed: Promise<readonly T[]>): Promise<readonly T[]> {
  try {
    return await listed;
  } catch (error) {
    if (error instanceof KubeError && error.code === 'NOT_FOUND') return [];
    throw error;
  }
}

function fail(io: Io, problem: string, code: number): number {
  io.stderr(`nmi grants: ${problem}\n`);
  return code;
}
