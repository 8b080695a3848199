/** A pod of the lab: a Kubernetes object, an address, and a client that sends requests from it. */
import { parseRecord } from '../../src/base/json-value.ts';
import { LabError } from '../fabric/lab-error.ts';
import { decodeLabToken } from '../fakes/token.ts';
import type { PodClient } from './pod-client.ts';
import type { PodAnswer, PodLoad, PodLoadReport, PodRequest } from './pod-protocol.ts';

export interface PodReply {
  /** 0 without an answer; then `failure` has the reason. */
  readonly status: number;
  readonly failure: string | undefined;
  readonly text: string;
  readonly headers: ReadonlyMap<string, string>;
  /** The parsed body; empty when it is not a JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
  /** Lab name of the token's identity; `node` for the node's own. */
  readonly identity: string | undefined;
  readonly durationMs: number;
  /** Without what a busy machine made the pod wait. */
  readonly ownMs: number;
  /** The answer came on an existing connection. */
  readonly wasReused: boolean;
}

export interface AskOptions {
  /** Additional query text, such as `client_id=…`. */
  readonly query?: string;
  readonly resource?: string;
  /** The whole request target instead of the token path. */
  readonly target?: string;
  readonly method?: string;
  /** Default `Metadata: true`. */
  readonly headers?: readonly string[];
  /** Name of a kept-alive connection; default a new one. */
  readonly connection?: string;
  readonly body?: string;
  readonly timeoutMs?: number;
  /** Address to dial instead of the metadata address. */
  readonly host?: string;
  /** The address to dial from. */
  readonly from?: string;
}

export interface LabPodOptions {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly uid: string;
  readonly client: PodClient;
  /** Called for every token that the pod got. */
  readonly onIdentity: (identity: string, count: number) => void;
  readonly log: (line: string) => void;
}

export const tokenPath = '/metadata/identity/oauth2/token';
export const vaultResource = 'https://vault.azure.net';
export const metadataHeader = ['Metadata', 'true'] as const;
/**
 * A connection takes 1 ms of processor time: four workers without a pause take all there is, and more than one
 * pod gets. With it they still connect every 2 ms.
 */
const freshPauseMs = 5;

export class LabPod implements AsyncDisposable {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly uid: string;
  readonly client: PodClient;
  readonly #options: LabPodOptions;

  constructor(options: LabPodOptions) {
    this.namespace = options.namespace;
    this.name = options.name;
    this.ip = options.ip;
    this.uid = options.uid;
    this.client = options.client;
    this.#options = options;
  }

  /** One request, logged and counted. Never rejects, whatever the answer or failure. */
  async ask(options: AskOptions = {}): Promise<PodReply> {
    const target = options.target ?? tokenTarget(options);
    const answer = await this.#request({
      method: options.method ?? 'GET',
      target,
      headers: options.headers ?? metadataHeader,
      connection: options.connection ?? 'new',
      timeoutMs: options.timeoutMs ?? 10_000,
      ...(options.body === undefined ? {} : { body: options.body }),
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.from === undefined ? {} : { from: options.from }),
    });
    return this.#note(answer, options.method ?? 'GET', target);
  }

  /**
   * The reply to a token request that was sent in another way than by the client, as the bytes of
   * an HTTP response or the reason why there is none.
   */
  noteResponse(text: string): PodReply {
    return this.#note(parseResponse(text), 'GET', tokenTarget({}));
  }

  #note(answer: PodAnswer, method: string, target: string): PodReply {
    const reply = answer.outcome === 'failed' ? failedReply(answer) : readReply(answer);
    if (reply.identity !== undefined) this.#options.onIdentity(reply.identity, 1);
    this.#options.log(describe(this, method, target, reply));
    return reply;
  }

  /** A pod that exits during a request is a normal failure: perhaps nothing awaits the promise. */
  async #request(request: PodRequest): Promise<PodAnswer> {
    const startedAtMs = performance.now();
    try {
      return await this.client.request(request);
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      const durationMs = performance.now() - startedAtMs;
      return { outcome: 'failed', error: error.code, durationMs, ownMs: durationMs };
    }
  }

  /** Requests in a loop inside the pod, counted. */
  async load(load: Partial<PodLoad> & { readonly durationMs: number }): Promise<PodLoadReport> {
    const report = await this.client.load({
      targets: [{ target: tokenTarget({}), headers: metadataHeader }],
      concurrency: 4,
      newConnectionPerRequest: true,
      timeoutMs: 10_000,
      pauseMs: load.newConnectionPerRequest === false ? 0 : freshPauseMs,
      ...load,
    });
    for (const { identity, count } of report.counts) {
      if (identity !== undefined) this.#options.onIdentity(identity, count);
    }
    const counts = report.counts.map(
      ({ outcome, identity, count }) =>
        `${count} × ${outcome}${identity === undefined ? '' : ` (${identity})`}`,
    );
    this.#options.log(`pod ${this.name}: ${report.requests} requests: ${counts.join(', ')}`);
    return report;
  }

  /** The same pod with another client, as another container of it. */
  through(client: PodClient): LabPod {
    return new LabPod({ ...this.#options, client });
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.client[Symbol.asyncDispose]();
  }
}

/** The token path with the usual query, for one request or for a load. */
export function tokenTarget(options: Pick<AskOptions, 'query' | 'resource'>): string {
  const resource = encodeURIComponent(options.resource ?? vaultResource);
  const extra = options.query === undefined ? '' : `&${options.query}`;
  return `${tokenPath}?api-version=2018-02-01&resource=${resource}${extra}`;
}

function failedReply(answer: Extract<PodAnswer, { outcome: 'failed' }>): PodReply {
  return {
    status: 0,
    failure: answer.error,
    text: '',
    headers: new Map(),
    body: {},
    identity: undefined,
    durationMs: answer.durationMs,
    ownMs: answer.ownMs,
    wasReused: false,
  };
}

function parseResponse(text: string): PodAnswer {
  const [head = '', body = ''] = text.split('\r\n\r\n');
  const [first = '', ...lines] = head.split('\r\n');
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]);
  if (Number.isNaN(status))
    return { outcome: 'failed', error: text.trim(), durationMs: 0, ownMs: 0 };
  const headers = lines.map((line) => {
    const [name = '', ...value] = line.split(': ');
    return [name, value.join(': ')] as const;
  });
  return {
    outcome: 'answered',
    status,
    headers,
    body,
    durationMs: 0,
    ownMs: 0,
    reusedConnection: false,
  };
}

function readReply(answer: Extract<PodAnswer, { outcome: 'answered' }>): PodReply {
  const { status, headers, body: text, durationMs, ownMs, reusedConnection } = answer;
  // Not a JSON object: the status is sufficient.
  const body = parseRecord(text) ?? {};
  const token = body['access_token'];
  return {
    status,
    failure: undefined,
    text,
    headers: new Map(headers.map(([name, value]) => [name.toLowerCase(), value])),
    body,
    identity: typeof token === 'string' ? decodeLabToken(token)?.lab_identity : undefined,
    durationMs,
    ownMs,
    wasReused: reusedConnection,
  };
}

function describe(pod: LabPod, method: string, target: string, reply: PodReply): string {
  const asked = `pod ${pod.namespace}/${pod.name} (${pod.ip}) ${method} ${shorten(target)}`;
  if (reply.failure !== undefined) return `${asked} → ${reply.failure}`;
  if (reply.identity !== undefined) return `${asked} → ${reply.status}, identity ${reply.identity}`;
  const { error_description: description } = reply.body;
  const said = typeof description === 'string' ? `: ${shorten(description)}` : '';
  return `${asked} → ${reply.status}${said}`;
}

function shorten(text: string): string {
  const plain = text
    .replace(`${tokenPath}?api-version=2018-02-01&resource=`, 'token?resource=')
    .replace('https%3A%2F%2F', 'https://');
  return plain.length > 160 ? `${plain.slice(0, 157)}...` : plain;
}
