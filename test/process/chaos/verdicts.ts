/** Which answers are right, and their counts. */
import { decodeLabToken } from '../../../lab/fakes/token.ts';
import { asRecord, parseRecord } from '../../../src/base/json-value.ts';
import type { Outcome } from './connection.ts';
import type { History, Window } from './history.ts';
import type { SyncProbes } from './sync-probes.ts';
import type { Question, TokenQuestion } from './requests.ts';

/** A connection and its owner: it belongs to the pod that opened it. */
export interface OpenedBy {
  readonly ip: string;
  readonly openedAtMs: number;
  /** Pods that may have opened it, once it has carried a token. */
  owners: ReadonlySet<string> | undefined;
}

export interface Asked {
  readonly question: Question;
  readonly by: OpenedBy;
  readonly sentAtMs: number;
  readonly sentAtWallMs: number;
  /** Well-formed, and nothing on the connection ends it before. */
  readonly isOwed: boolean;
}

/** The longest time of an answer from the agent to the pod, by the pod's clock. */
const onItsWayMs = 250;
const mustWait = new Set([429, 503]);
const ownStatuses = new Set([200, 400, 403, 404, 405, 408, 429, 431, 503]);

export class Verdicts {
  readonly #history: History;
  readonly #probes: SyncProbes;
  /** Statuses, ends and the identities of tokens, with their counts. */
  readonly counts = new Map<string, number>();
  /** Events that must not happen. */
  readonly findings: string[] = [];
  requests = 0;
  slowestMs = 0;

  constructor(history: History, probes: SyncProbes) {
    this.#history = history;
    this.#probes = probes;
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  find(finding: string): void {
    this.findings.push(`${Math.round(performance.now())} ms: ${finding}`);
  }

  check(asked: Asked, outcome: Outcome): void {
    this.slowestMs = Math.max(this.slowestMs, outcome.atMs - asked.sentAtMs);
    if (outcome.kind === 'end') {
      this.count(`ended ${outcome.error ?? 'in order'}`);
      if (asked.isOwed) this.#checkEnd(asked, outcome);
      return;
    }
    const { status, headers, text } = outcome;
    const { token } = asked.question;
    // An answer of the real service is forwarded unchanged, under its own name.
    const isOwn = headers.get('server')?.includes(' nmi/') === true;
    this.count(`status ${status}${isOwn ? '' : ' relayed'}`);
    if (!isOwn && !asked.question.isRelayed) this.find(`an answer of the real service: ${status}`);
    if (isOwn && !ownStatuses.has(status)) this.find(`status ${status}: ${text.slice(0, 300)}`);
    if (isOwn && mustWait.has(status) !== headers.has('retry-after')) {
      this.find(`status ${status}, Retry-After: ${headers.get('retry-after') ?? 'none'}`);
    }
    if (!text.includes('"access_token"')) {
      if (status === 200 && token !== undefined) this.find(`no token in ${text.slice(0, 300)}`);
    } else if (status !== 200 || token === undefined) {
      this.find(`a token with status ${status} where there is none`);
    } else {
      this.#checkToken(asked, token, outcome.atMs, text);
    }
  }

  /** Connections of a deleted pod are reset; any other missing answer is an error. */
  #checkEnd({ question, by }: Asked, { error, atMs }: Extract<Outcome, { kind: 'end' }>): void {
    const isLeft = new Set(
      this.#uidsAt(by.ip, { objectsFromMs: atMs, exceptionsFromMs: atMs, untilMs: atMs }),
    );
    const owners = this.#uidsAt(by.ip, { ...this.#probes.knownAt(by.openedAtMs), untilMs: atMs });
    if (error === 'ECONNRESET' && owners.some((uid) => !isLeft.has(uid))) return;
    const how = error ?? 'in order';
    this.find(`${by.ip} got no answer but an end (${how}): ${question.bytes.slice(0, 200)}`);
  }

  /**
   * The state that the agent surely had at its last decision, which comes after the fetch. Of
   * several answers in flight, the later ones may have been made long before they arrived.
   */
  #knownFor({ sentAtMs, isOwed }: Asked, cameAtMs: number) {
    return this.#probes.knownAt(isOwed ? Math.max(sentAtMs, cameAtMs - onItsWayMs) : sentAtMs);
  }

  #uidsAt(ip: string, window: Window): readonly string[] {
    return this.#history.podsAt(ip, window).map(({ metadata }) => metadata.uid);
  }

  #checkToken(asked: Asked, question: TokenQuestion, atMs: number, text: string): void {
    const { by, sentAtWallMs } = asked;
    const body = parseRecord(text);
    const fields = question.onBehalfOf === undefined ? body : asRecord(body?.['token']);
    const claims = decodeLabToken(String(fields?.['access_token']));
    if (claims === undefined) return this.find('a token that nobody made');
    const { lab_identity: identity, exp } = claims;
    this.count(`token of ${identity}`);
    const what = `token of ${identity} for ${JSON.stringify(question)} at ${by.ip}`;
    if (fields?.['resource'] !== question.resource) this.find(`${what}: another resource`);
    if (question.identity !== undefined && question.identity !== identity) {
      this.find(`${what}: another identity was named`);
    }
    if (exp * 1000 < sentAtWallMs) {
      this.find(`${what}: it had expired ${Math.round(sentAtWallMs - exp * 1000)} ms before`);
    }
    this.#checkRight(asked, question, identity, atMs, what);
  }

  #checkRight(
    asked: Asked,
    { onBehalfOf }: TokenQuestion,
    identity: string,
    untilMs: number,
    what: string,
  ): void {
    const window: Window = { ...this.#knownFor(asked, untilMs), untilMs };
    const { by, sentAtMs } = asked;
    const there =
      onBehalfOf === undefined
        ? this.#history.podsAt(by.ip, window)
        : this.#history.podsNamed(onBehalfOf.namespace, onBehalfOf.name, window);
    const isOwner = ({ metadata }: (typeof there)[number]): boolean =>
      onBehalfOf !== undefined || (by.owners?.has(metadata.uid) ?? true);
    const pods = there.filter(isOwner);
    if (!pods.some((pod) => this.#history.isEntitled(pod, identity, window))) {
      const { objectsFromMs, exceptionsFromMs } = window;
      const knownFor = [objectsFromMs, exceptionsFromMs].map((ms) => Math.round(sentAtMs - ms));
      this.find(
        `${what}: no pod was entitled to it (${pods.length} of ${there.length} pods could be ` +
          `meant, clusterState was at most ${knownFor.join(' and ')} ms old, and the answer took ` +
          `${Math.round(untilMs - sentAtMs)} ms)`,
      );
    }
    // The owner of the address when the connection was opened, or the first known owner.
    const opened = { ...this.#probes.knownAt(by.openedAtMs), untilMs };
    if (onBehalfOf === undefined) by.owners ??= new Set(this.#uidsAt(by.ip, opened));
  }
}
