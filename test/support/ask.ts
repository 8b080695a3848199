/** One request of a pod, and the reply as a test reads it. */
import { decodeLabToken } from '../../lab/fakes/token.ts';
import { parseRecord } from '../../src/base/json-value.ts';
import type { PodClient } from '../../lab/pods/pod-client.ts';

export const tokenTarget =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net';

export interface Reply {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly text: string;
  /** The parsed body; empty when it is not a JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
  /** The lab name of the identity in the token, if the reply has one. */
  readonly identity: string | undefined;
  readonly durationMs: number;
  /** Without what a busy machine made this process wait. */
  readonly ownMs: number;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: readonly string[];
  readonly connection?: string;
  readonly body?: string;
}

/** @throws when no reply was received at all. */
export async function ask(
  client: PodClient,
  target: string,
  options: AskOptions = {},
): Promise<Reply> {
  const answer = await client.request({
    method: options.method ?? 'GET',
    target,
    headers: options.headers ?? ['Metadata', 'true'],
    connection: options.connection ?? 'new',
    timeoutMs: 30_000,
    ...(options.body === undefined ? {} : { body: options.body }),
  });
  if (answer.outcome !== 'answered') throw new Error(`no answer: ${answer.error}`);
  const body = parseRecord(answer.body) ?? {};
  const token = body['access_token'];
  return {
    status: answer.status,
    headers: new Map(answer.headers.map(([name, value]) => [name.toLowerCase(), value])),
    text: answer.body,
    body,
    identity: typeof token === 'string' ? decodeLabToken(token)?.lab_identity : undefined,
    durationMs: answer.durationMs,
    ownMs: answer.ownMs,
  };
}
