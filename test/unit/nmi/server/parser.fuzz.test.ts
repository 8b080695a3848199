/**
 * Compares the requests that the fast path recognizes with Node's own HTTP parser, over mutations
 * of real requests: one request, the same method, target, headers and framing. `NMI_FUZZ_MUTATIONS`
 * sets the length of the run, and `NMI_FUZZ_SEED` repeats the mutations of an earlier run.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, it } from 'node:test';
import { createRandom } from '../../../../lab/test-bed/random.ts';
import {
  readRequest,
  type KnownRequest,
} from '../../../../src/nmi/server/fast-path/known-request.ts';

const given = Number(process.env['NMI_FUZZ_MUTATIONS']);
const mutations = given > 0 ? given : 1_000_000;
const givenSeed = Number(process.env['NMI_FUZZ_SEED']);
const seed = givenSeed > 0 ? givenSeed : randomInt(1, 2 ** 31);

const path = '/metadata/identity/oauth2/token';
const query = 'api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net';
const id = '6f9619ff-8b86-d011-b42d-00cf4fc964ff';
/** Requests as clients send them, and some that no client sends. */
const seeds: readonly string[] = [
  `GET ${path}?${query} HTTP/1.1\r\nMetadata: true\r\n\r\n`,
  `GET ${path}?${query} HTTP/1.1\r\nHost: 169.254.169.254\r\nmetadata:true\r\nConnection: close\r\n\r\n`,
  `GET ${path}?${query}&client_id=${id} HTTP/1.1\r\nx-ms-client-request-id: ${id}\r\nMetadata: true\r\nConnection: keep-alive\r\n\r\n`,
  `GET ${path}?${query} HTTP/1.1\r\nMetadata: true\r\ntraceparent: 00-1-2-01\r\nclient-request-id:\t${id} \r\nAccept: */*\r\n\r\n`,
  `POST ${path}?${query} HTTP/1.1\r\nMetadata: true\r\nContent-Length: 5\r\n\r\nhello`,
  `GET ${path}?${query} HTTP/1.1\r\nMetadata: true\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
];
const lines = [
  'Content-Length: 0|content-length: 5|Transfer-Encoding: chunked|Transfer-Encoding : chunked',
  'TE: trailers|Expect: 100-continue|Upgrade: h2c|Trailer: a|Proxy-Connection: close',
  'Connection: close|Connection: upgrade|Connection: close, upgrade|X-Forwarded-For: 1.2.3.4',
  `Metadata: true|Metadata: false|metadata: TRUE|a: b|x-ms-client-request-id: ${id}`,
];
/** Inputs on which HTTP parsers have disagreed. */
const pieces: readonly string[] = [
  ...lines.flatMap((each) => each.split('|').map((line) => `${line}\r\n`)),
  ...'\r\n|\n|\r|\0| |\t|:|,|\r\n\r\n|\r\n |\x7f|\x80|\xff|\v|?|#'.split('|'),
  ...` HTTP/1.1| HTTP/1.0|GET |HEAD |${path}|%2f|../|http://h`.split('|'),
];
const framing: ReadonlySet<string> = new Set(
  'content-length transfer-encoding expect upgrade te trailer proxy-connection x-forwarded-for'.split(
    ' ',
  ),
);
const correlation: ReadonlySet<string> = new Set(
  'client-request-id request-id traceparent x-ms-client-request-id x-ms-correlation-request-id'.split(
    ' ',
  ),
);

interface Message {
  readonly minorVersion: number;
  readonly method: string;
  readonly url: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly upgrade: boolean;
  readonly keepAlive: boolean;
  bodyLength: number;
  isComplete: boolean;
}

/** The subset of Node's own binding to llhttp that a server uses. */
interface NodeParser {
  initialize(type: number, resource: object): void;
  execute(data: Buffer): number | Error;
  [callback: number]: (...args: never[]) => unknown;
}

const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as {
  readonly HTTPParser: { new (): NodeParser } & Readonly<Record<string, number>>;
  readonly methods: readonly string[];
};

/** The messages before the first error, and whether all bytes were consumed. */
function parseByNode(bytes: Buffer): {
  readonly messages: readonly Message[];
  readonly isWhole: boolean;
} {
  const parser = new HTTPParser();
  parser.initialize(HTTPParser['REQUEST']!, {});
  const messages: Message[] = [];
  let [early, earlyUrl]: [string[], string] = [[], ''];
  parser[HTTPParser['kOnHeaders']!] = (headers: string[], url: string) => {
    early.push(...headers);
    earlyUrl += url;
  };
  parser[HTTPParser['kOnHeadersComplete']!] = (
    _major: number,
    minorVersion: number,
    headers: string[] | undefined,
    method: number,
    url: string | undefined,
    _status: unknown,
    _text: unknown,
    upgrade: boolean,
    keepAlive: boolean,
  ) => {
    const flat = [...early, ...(headers ?? [])];
    messages.push({
      minorVersion,
      method: methods[method] ?? '',
      url: earlyUrl + (url ?? ''),
      headers: flat.flatMap((name, index) =>
        index % 2 === 0 ? [[name.toLowerCase(), flat[index + 1] ?? ''] as const] : [],
      ),
      upgrade,
      keepAlive,
      bodyLength: 0,
      isComplete: false,
    });
    [early, earlyUrl] = [[], ''];
    return 0;
  };
  parser[HTTPParser['kOnBody']!] = (body: Buffer) =>
    void (messages.at(-1)!.bodyLength += body.length);
  parser[HTTPParser['kOnMessageComplete']!] = () => void (messages.at(-1)!.isComplete = true);
  return { messages, isWhole: parser.execute(bytes) === bytes.length };
}

function pick(request: KnownRequest | undefined) {
  return { target: request?.target, isLast: request?.isLast, ids: request?.ids };
}

function assertAlike(bytes: Buffer, fast: KnownRequest): void {
  const { messages, isWhole } = parseByNode(bytes);
  assert.equal(messages.length, 1, 'one request');
  const [{ headers, ...message }] = messages as readonly [Message];
  assert.deepEqual(
    { ...message, isWhole },
    {
      minorVersion: 1,
      method: 'GET',
      url: fast.target,
      upgrade: false,
      keepAlive: !fast.isLast,
      bodyLength: 0,
      isComplete: true,
      isWhole: true,
    },
  );
  const named = (name: string) =>
    headers.filter((header) => header[0] === name).map(([, value]) => value);
  assert.deepEqual(named('metadata'), ['true']);
  assert.deepEqual(
    headers.filter(([name]) => framing.has(name)),
    [],
  );
  assert.ok(named('connection').length <= 1);
  assert.deepEqual(
    fast.ids.map(({ name, from, to }) => [name, bytes.toString('latin1', from, to).trim()]),
    headers.filter(([name]) => correlation.has(name)),
  );
}

describe('the fast path and Node’s parser', () => {
  it('read mutated requests alike', (t) => {
    t.diagnostic(`seed ${seed}, ${mutations} mutations`);
    const random = createRandom(seed);
    const below = (limit: number): number => Math.floor(random() * limit);
    const oneOf = (list: readonly string[]): string => list[below(list.length)]!;
    const mutate = (text: string): string => {
      const at = below(text.length + 1);
      const to = Math.min(text.length, at + below(24));
      switch (below(6)) {
        case 0:
          return text.slice(0, at) + oneOf(pieces) + text.slice(at);
        case 1:
          return text.slice(0, at) + text.slice(to);
        case 2:
          return text.slice(0, at) + String.fromCodePoint(below(256)) + text.slice(at + 1);
        case 3:
          return text.slice(0, to) + text.slice(at);
        case 4: {
          const line = text.indexOf('\r\n', at) + 2;
          return line < 2
            ? text + oneOf(seeds)
            : text.slice(0, line) + oneOf(pieces) + text.slice(line);
        }
        default: {
          const other = oneOf(seeds);
          return text.slice(0, at) + other.slice(below(other.length));
        }
      }
    };
    let known: KnownRequest | undefined;
    let recognised = 0;
    for (let turn = 0; turn < mutations; turn++) {
      let text = oneOf(seeds);
      for (let more = below(4); more >= 0; more--) text = mutate(text);
      const bytes = Buffer.from(text, 'latin1');
      const fast = readRequest(bytes);
      const again = readRequest(bytes, known);
      try {
        // A known earlier request may only cause this one to be left to Node.
        if (again !== undefined) {
          const { target, isLast, ids } = again;
          assert.deepEqual({ target, isLast, ids }, pick(fast));
        }
        if (fast === undefined) continue;
        recognised += 1;
        assertAlike(bytes, fast);
      } catch (error) {
        throw new Error(`seed ${seed}, turn ${turn}: ${JSON.stringify(text)}`, { cause: error });
      }
      known = fast;
    }
    assert.ok(recognised > mutations / 20, `only ${recognised} were recognised`);
    t.diagnostic(`${recognised} recognised`);
  });
});
