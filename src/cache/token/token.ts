/**
 * A token as delivered by a source, and the response body rendered from it. Both are immutable.
 */

/** Result of a source. Times are wall-clock seconds since the epoch. */
export interface Token {
  readonly accessToken: string;
  /** Empty if the source sent none. */
  readonly clientId: string;
  /** Exactly as spelled by the caller: MSAL uses the echoed value as its cache scope. */
  readonly resource: string;
  readonly expiresAtWallS: number;
  /** Life on arrival in seconds, if the source sent it; independent of the wall clock. */
  readonly livesForS?: number;
  /**
   * How far the wall clock was ahead of the source's clock on arrival; negative if behind; default
   * 0. The expiry is a time of the source's clock.
   */
  readonly clockAheadMs?: number;
  readonly notBeforeWallS: number;
  /** End of the extended life, if the source sent one. */
  readonly extExpiresAtWallS: number | undefined;
  /** Refresh time named by the source, if it sent one. */
  readonly refreshAtWallS?: number;
  /**
   * Id of the fetch that delivered it: a GUID, and the correlation id in the request to the source.
   */
  readonly fetchId?: string;
}

/** The id, other than a client id, that a request selected its identity by. */
export interface RequestedId {
  readonly kind: 'object_id' | 'resource_id';
  /** As spelled in the request. */
  readonly value: string;
}

/** Most seconds reported as left when a clock that is ahead has passed the expiry. */
const maxReportedWhenAheadS = 300;

/** Expiry in milliseconds of the wall clock as it was on arrival. */
export function endsAtWallMs({ expiresAtWallS, clockAheadMs = 0 }: Token): number {
  return expiresAtWallS * 1000 + clockAheadMs;
}

/**
 * The JSON body of a token response, rendered when the token arrives, with gaps for the two
 * relative times. Key order and string values are those of the real IMDS: .NET maps `expires_in`
 * and `expires_on` to one field and uses the last one.
 */
export class RenderedToken {
  readonly token: Token;
  readonly #head: string;
  readonly #middle: string;
  readonly #notBefore: string;
  readonly #end: string;
  readonly #tail: string;

  constructor(token: Token) {
    this.token = token;
    const text = (value: string | number): string => JSON.stringify(String(value));
    const clientId = token.clientId === '' ? '' : `,"client_id":${text(token.clientId)}`;
    this.#head = `{"access_token":${text(token.accessToken)}${clientId},"expires_in":"`;
    this.#middle = `","expires_on":${text(token.expiresAtWallS)},"ext_expires_in":"`;
    this.#notBefore = `,"not_before":${text(token.notBeforeWallS)}`;
    this.#end = `,"resource":${text(token.resource)},"token_type":"Bearer"}`;
    this.#tail = `"${this.#notBefore}${this.#end}`;
  }

  /**
   * The body at `wallMs`; `expires_in` is never negative. Like the real service, it repeats the id
   * of the request.
   */
  body(wallMs: number, requestedId?: RequestedId): string {
    const nowS = Math.floor(wallMs / 1000);
    const left = Math.max(0, this.#leftS(nowS));
    const extended = Math.max(left, (this.token.extExpiresAtWallS ?? 0) - nowS);
    const upToExtended = `${this.#head}${left}${this.#middle}${extended}`;
    if (requestedId === undefined) return upToExtended + this.#tail;
    const value = JSON.stringify(requestedId.value);
    return requestedId.kind === 'resource_id'
      ? `${upToExtended}","msi_res_id":${value}${this.#notBefore}${this.#end}`
      : `${upToExtended}"${this.#notBefore},"object_id":${value}${this.#end}`;
  }

  /**
   * Seconds. A clock that was ahead may have been corrected since, which would report too long a
   * life. The reported life is then capped so low that a client does not keep the token.
   */
  #leftS(nowS: number): number {
    const { expiresAtWallS, clockAheadMs = 0 } = this.token;
    if (clockAheadMs === 0) return expiresAtWallS - nowS;
    const left = Math.floor(endsAtWallMs(this.token) / 1000) - nowS;
    if (clockAheadMs < 0) return left;
    return Math.max(expiresAtWallS - nowS, Math.min(left, maxReportedWhenAheadS));
  }

  /** A token must not reach a log by accident. */
  toJSON(): string {
    return '[token]';
  }
}
