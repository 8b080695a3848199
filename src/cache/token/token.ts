/**
 * A token as a source delivered it, and the answer rendered from it once. Both are immutable.
 */

/** What a source hands over. Times are wall-clock seconds since the epoch. */
export interface Token {
  readonly accessToken: string;
  /** Empty when the source did not say. */
  readonly clientId: string;
  /** Exactly as the caller spelt it: MSAL uses the echoed value as its cache scope. */
  readonly resource: string;
  readonly expiresAtWallS: number;
  /** Life on arrival in seconds, if the source told: it holds whatever the wall clock says. */
  readonly livesForS?: number;
  /**
   * How far the wall clock was ahead of the source's on arrival, below 0 behind; default 0. The
   * expiry is a time of the source's clock.
   */
  readonly clockAheadMs?: number;
  readonly notBeforeWallS: number;
  /** When the extended life ends, if the source told one. */
  readonly extExpiresAtWallS: number | undefined;
  /** When the source would have it renewed, if it told. */
  readonly refreshAtWallS?: number;
}

/** An id that a request chose its identity by, other than the client id. */
export interface RequestedId {
  readonly kind: 'object_id' | 'resource_id';
  /** As the request spelt it. */
  readonly value: string;
}

/** The most that is told to be left by a clock that is ahead, once it has passed the expiry. */
const maxReportedWhenAheadS = 300;

/** When the token ends, in milliseconds of the wall clock as it was on arrival. */
export function endsAtWallMs({ expiresAtWallS, clockAheadMs = 0 }: Token): number {
  return expiresAtWallS * 1000 + clockAheadMs;
}

/**
 * The JSON body of a token answer, rendered when the token arrives, with holes for the two
 * relative times. Key order and the string values are those of the real IMDS: .NET maps
 * `expires_in` and `expires_on` to one field and takes the last, so their order matters.
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
   * The body at `wallMs`: `expires_in` is what is left, never below zero. The real service repeats
   * the id that it was asked by.
   */
  body(wallMs: number, asked?: RequestedId): string {
    const nowS = Math.floor(wallMs / 1000);
    const left = Math.max(0, this.#leftS(nowS));
    const extended = Math.max(left, (this.token.extExpiresAtWallS ?? 0) - nowS);
    const upToExtended = `${this.#head}${left}${this.#middle}${extended}`;
    if (asked === undefined) return upToExtended + this.#tail;
    const value = JSON.stringify(asked.value);
    return asked.kind === 'resource_id'
      ? `${upToExtended}","msi_res_id":${value}${this.#notBefore}${this.#end}`
      : `${upToExtended}"${this.#notBefore},"object_id":${value}${this.#end}`;
  }

  /**
   * Seconds. A clock that is ahead may have been corrected since: what would be too much then is
   * told as too little for a client to keep the token.
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
