/** The Kubernetes API over HTTP as one user: what the tests themselves write and read. */
import { Pool } from 'undici';

/** A Kubernetes object, list or `Status`, with the fields that the tests read. */
export interface KubeBody {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly [field: string]: unknown;
  };
  readonly items?: readonly KubeBody[] | null;
  readonly status?: unknown;
  readonly message?: string;
  readonly reason?: string;
  readonly code?: number;
  readonly [field: string]: unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: KubeBody;
}

/** A line of a watch. */
export interface WatchLine {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: KubeBody;
}

export interface ApiAccess {
  readonly url: string;
  /** Of a server without an address. */
  readonly socketPath?: string;
  /** Absent for a server without TLS. */
  readonly caPem?: string;
  readonly certPem?: string;
  readonly keyPem?: string;
  readonly token?: string;
}

export interface RequestOptions {
  readonly contentType?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

export interface Api extends AsyncDisposable {
  /** Any status is an answer. A body that is not JSON becomes its `message`. */
  request(method: string, path: string, body?: unknown, options?: RequestOptions): Promise<Answer>;
  /** The body of an answer that must be a success. */
  expect(method: string, path: string, body?: unknown, options?: RequestOptions): Promise<KubeBody>;
  /** The status alone; the body is ignored. */
  probe(path: string): Promise<number>;
  /** Leaving the loop closes the connection; a status other than 200 throws. */
  watch(path: string, options?: WatchOptions): AsyncGenerator<WatchLine, void>;
}

export interface WatchOptions {
  readonly onOpen?: () => void;
  readonly timeoutMs?: number;
}

const defaultTimeoutMs = 30_000;

export function openApi({ url, socketPath, caPem, certPem, keyPem, token }: ApiAccess): Api {
  const pool = new Pool(url, {
    ...(socketPath === undefined ? {} : { socketPath }),
    allowH2: false,
    connect: {
      ...(caPem === undefined ? {} : { ca: caPem }),
      ...(certPem === undefined ? {} : { cert: certPem }),
      ...(keyPem === undefined ? {} : { key: keyPem }),
    },
  });
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };

  const request: Api['request'] = async (method, path, body, options = {}) => {
    const { contentType = 'application/json', headers = {}, timeoutMs } = options;
    const response = await pool.request({
      method,
      path,
      headers: {
        ...authorization,
        ...(body === undefined ? {} : { 'content-type': contentType }),
        accept: 'application/json',
        ...headers,
      },
      body: body === undefined || typeof body === 'string' ? (body ?? null) : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs ?? defaultTimeoutMs),
    });
    const text = await response.body.text();
    return {
      status: response.statusCode,
      headers: response.headers,
      body: parseBody(text),
    };
  };

  return {
    request,
    async expect(method, path, body, options) {
      const answer = await request(method, path, body, options);
      if (answer.status >= 200 && answer.status < 300) return answer.body;
      throw new Error(`${method} ${path}: ${answer.status} ${answer.body.message ?? ''}`);
    },
    async probe(path) {
      const { statusCode, body } = await pool.request({
        method: 'GET',
        path,
        headers: authorization,
        signal: AbortSignal.timeout(defaultTimeoutMs),
      });
      await body.dump();
      return statusCode;
    },
    async *watch(path, { onOpen, timeoutMs = defaultTimeoutMs } = {}) {
      const { statusCode, body } = await pool.request({
        method: 'GET',
        path,
        headers: { ...authorization, accept: 'application/json' },
        signal: AbortSignal.timeout(timeoutMs),
      });
      try {
        if (statusCode !== 200) throw new Error(`${path}: ${statusCode} ${await body.text()}`);
        onOpen?.();
        let text = '';
        const decoder = new TextDecoder();
        for await (const chunk of body as AsyncIterable<Uint8Array>) {
          text += decoder.decode(chunk, { stream: true });
          const lines = text.split('\n');
          text = lines.pop() ?? '';
          for (const line of lines) yield JSON.parse(line) as WatchLine;
        }
      } finally {
        body.destroy();
      }
    },
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}

/** Paths outside every API are answered in plain text. */
function parseBody(text: string): KubeBody {
  try {
    return JSON.parse(text) as KubeBody;
  } catch {
    return { metadata: { name: '', uid: '', resourceVersion: '' }, message: text };
  }
}
