/**
 * One request on the metadata address: the parsed request and its caller, reduced to what the
 * handlers need.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { CacheOutcome } from '../../cache/token/cache.ts';
import type { Answer } from '../base/answers.ts';
import type { CallerConnection } from '../callers/caller.ts';
import type { Grant } from '../grants/grant.ts';

/** The outcome of a token request that had the right method and headers. */
export interface TokenDecision {
  /** Undefined for a request that was refused for its parameters. */
  readonly grant: Grant | undefined;
  /** Empty if the parameters were refused. */
  readonly resource: string;
  readonly cache: CacheOutcome | 'none';
  /** Id of the fetch that returned the token or the failure, whichever request caused it. */
  readonly fetchId: string | undefined;
}

/** The handler has already written the answer itself. */
export const relayed = Symbol('relayed');
export type Handled = (Answer & { readonly decision?: TokenDecision }) | typeof relayed;

export type Exchange = Pick<
  HttpExchange,
  'caller' | 'method' | 'startedAtMs' | 'requestId' | 'isGone' | 'headerValues'
>;

/** A request that `node:http` parsed. */
export class HttpExchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly caller: CallerConnection;
  /** Monotonic milliseconds at which the head was parsed. */
  readonly startedAtMs: number;
  readonly requestId: string;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    caller: CallerConnection,
    startedAtMs: number,
    requestId: string,
  ) {
    this.request = request;
    this.response = response;
    this.caller = caller;
    this.startedAtMs = startedAtMs;
    this.requestId = requestId;
  }

  get method(): string {
    return this.request.method ?? '';
  }

  /** The request target as in the request line. */
  get target(): string {
    return this.request.url ?? '';
  }

  /** The client has disconnected and would not read an answer. */
  get isGone(): boolean {
    return this.response.destroyed || this.response.closed;
  }

  /** Every value of a header, in order. `Metadata: true` sent twice is two values. */
  headerValues(lowerCaseName: string): readonly string[] {
    const raw = this.request.rawHeaders;
    const values: string[] = [];
    for (let index = 0; index + 1 < raw.length; index += 2) {
      const name = raw[index];
      if (name?.length !== lowerCaseName.length || name.toLowerCase() !== lowerCaseName) continue;
      values.push(raw[index + 1] ?? '');
    }
    return values;
  }
}
