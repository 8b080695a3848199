/** `nmi demo`: the sample client of the replaced system. It never prints a token. */
import { setTimeout as delay } from 'node:timers/promises';
import { stringAt } from '../base/json-value.ts';
import { parseDuration } from '../base/time/duration.ts';
import type { Args } from './flags.ts';
import { getJson, type MetadataReply } from './http-get.ts';
import { exitCodes, fail, type Io } from './io.ts';

const defaultHost = 'http://169.254.169.254';
const defaultResource = 'https://management.azure.com/';
const maxTries = 5;

interface DemoFlags {
  readonly periodMs: number;
  readonly resource: string;
  readonly clientId: string;
  readonly once: boolean;
  /** From the variable by which Azure SDKs select another metadata host. */
  readonly host: string;
}

export async function demo(args: Args, io: Io): Promise<number> {
  const parsed = parseFlags(args, io);
  if (typeof parsed === 'string') return fail(io, 'demo', parsed, exitCodes.usage);
  for (;;) {
    const ok = await round(parsed, io);
    if (parsed.once) return ok ? exitCodes.ok : exitCodes.failed;
    try {
      await delay(parsed.periodMs, undefined, { signal: io.stop });
    } catch {
      return exitCodes.ok;
    }
  }
}

function parseFlags(args: Args, io: Io): DemoFlags | string {
  const { flags } = args;
  const { period = '100s', 'resource-name': resource = defaultResource } = flags;
  const { environment } = io;
  const host = environment['AZURE_POD_IDENTITY_AUTHORITY_HOST'];
  const isPod = host !== undefined || environment['KUBERNETES_SERVICE_HOST'] !== undefined;
  if (!isPod && flags['outside-pod'] !== 'true') {
    return 'this does not look like a pod, and would get tokens of this machine; --outside-pod runs it';
  }
  const periodMs = parseDuration(period);
  if (periodMs === undefined) return `--period has the value "${period}"; allowed: as 100s`;
  if (resource === '') return '--resource-name has the value ""; allowed: a resource';
  return {
    periodMs,
    resource,
    clientId: flags['identity-client-id'] ?? '',
    once: flags['once'] === 'true',
    host: host ?? defaultHost,
  };
}

async function round(flags: DemoFlags, io: Io): Promise<boolean> {
  const plain = await getToken(flags, '', io);
  const named = flags.clientId === '' || (await getToken(flags, flags.clientId, io));
  const metadata = await getInstanceMetadata(flags, io);
  return plain && named && metadata;
}

async function getInstanceMetadata(flags: DemoFlags, io: Io): Promise<boolean> {
  const url = `${flags.host}/metadata/instance?api-version=2017-08-01`;
  const reply = await getJson(url);
  if (reply.kind === 'answered' && reply.status === 200) {
    io.stdout('successfully made GET on instance metadata\n');
    return true;
  }
  io.stderr(`failed to GET instance metadata, error: ${describe(reply)}\n`);
  return false;
}

async function getToken(flags: DemoFlags, clientId: string, io: Io): Promise<boolean> {
  const endpoint = `${flags.host}/metadata/identity/oauth2/token`;
  const named = clientId === '' ? '' : `&client_id=${encodeURIComponent(clientId)}`;
  const resource = encodeURIComponent(flags.resource);
  const url = `${endpoint}?api-version=2018-02-01&resource=${resource}${named}`;
  const reply = await retry(() => getJson(url), io);
  const what =
    clientId === ''
      ? `a token using the MSI, msiEndpoint(${endpoint})`
      : `a token, userAssignedID MSI, msiEndpoint(${endpoint}) clientID(${clientId})`;
  const isGiven =
    reply.kind === 'answered' &&
    reply.status === 200 &&
    stringAt(reply.body, 'access_token') !== '';
  if (isGiven) io.stdout(`successfully acquired ${what}\n`);
  else io.stderr(`failed to acquire ${what}, error: ${describe(reply)}\n`);
  return isGiven;
}

/** Retries some statuses and every network error, like the client library of that time. */
async function retry(ask: () => Promise<MetadataReply>, io: Io): Promise<MetadataReply> {
  let reply = await ask();
  for (let tries = 1; tries < maxTries && isPassing(reply) && !io.stop.aborted; tries++) {
    await delay(pauseMs(reply, tries));
    reply = await ask();
  }
  return reply;
}

/** The time before the next try, which the server may choose. */
export function pauseMs(reply: MetadataReply, tries: number): number {
  const seconds = (reply.kind === 'answered' ? reply.retryAfterS : undefined) ?? 2 ** (tries - 1);
  return Math.min(seconds, 10) * 1000;
}

export function isPassing(reply: MetadataReply): boolean {
  if (reply.kind === 'failed') return true;
  return [404, 408, 410, 429].includes(reply.status) || reply.status >= 500;
}

function describe(reply: MetadataReply): string {
  if (reply.kind === 'failed') return reply.code;
  const [error, text] = [stringAt(reply.body, 'error'), stringAt(reply.body, 'error_description')];
  return `status ${reply.status} ${error} ${text}`.trim();
}
