/**
 * One request on the metadata address: what the parser gave, and who sent it. Only what the
 * handlers need, in one place.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Answer } from '../base/answers.ts';
import type { CallerConnection } from '../grants/caller.ts';
import type { Decision } from './decision-cache.ts';

/** An answer that is already on its way, written by the handler itself. */
export const relayed = Symbol('relayed');
export type Handled = Answer | typeof relayed;

export interface Exchange {
  readonly caller: CallerConnection;
  readonly method: string;
  /** Monotonic milliseconds at which the head was parsed. */
  readonly startedAtMs: number;
  readonly requestId: string;
  /** The client has gone; nobody reads an answer any more. */
  readonly isGone: boolean;
  /** Every value of a header, in order. Two `Metadata: true` are not one. */
  headerValues(lowerCaseName: string): readonly string[];
}

/** One that `node:http` parsed. */
export class HttpExchange implements Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly caller: CallerConnection;
  readonly startedAtMs: number;
  readonly requestId: string;
  /** What the fast path decided before it gave the connection away; for a target of its own. */
  readonly handed: Decision | undefined;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    caller: CallerConnection,
    startedAtMs: number,
    requestId: string,
    handed?: Decision,
  ) {
    this.request = request;
    this.response = response;
    this.caller = caller;
    this.startedAtMs = startedAtMs;
    this.requestId = requestId;
    this.handed = handed;
  }

  get method(): string {
    return this.request.method ?? '';
  }

  /** The request target as it stood in the request line. */
  get target(): string {
    return this.request.url ?? '';
  }

  get isGone(): boolean {
    return this.response.destroyed || this.response.closed;
  }

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
