/** The wire: pods that send good and bad requests, on connections that end in every way. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Chance } from '../../simulation/chance.ts';
import { PodConnection, type Outcome } from './connection.ts';
import { anyGarbage, anyQuestion, type PodName, type Question } from './requests.ts';
import type { OpenedBy, Verdicts } from './verdicts.ts';

/**
 * The agent's limit for one answer: its wait for an object, and four fetches with their waits, one
 * each time that the objects change during a fetch.
 */
const longestMs = 2_000 + 4 * 10_500 + 3_000;
const idleMs = [0, 40] as const;
const maxUnfinished = 4;
/** A pod's connections that outlive a request. */
const keptConnections = 2;

/**
 * All processes of a pod together: beyond 64 the agent closes them without an answer, and a closed
 * one counts until the agent has seen its end.
 */
const connectionsOfPod = 40;

/** Gives out places for connections; further callers wait in order. */
export class ConnectionPlaces {
  #free = connectionsOfPod;
  readonly #waiting: (() => void)[] = [];

  async take(): Promise<void> {
    if (this.#free === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#free--;
  }

  giveBack(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}

const weights = {
  kept: 40,
  fresh: 25,
  pipeline: 10,
  together: 6,
  halfClosed: 5,
  reset: 5,
  inPieces: 4,
  unfinished: 1,
  garbage: 4,
  many: 1,
};
type Manner = keyof typeof weights;

interface Kept {
  readonly connection: PodConnection;
  readonly by: OpenedBy;
}

export interface TrafficOptions {
  readonly port: number;
  readonly ip: string;
  readonly chance: Chance;
  readonly verdicts: Verdicts;
  /** Random choices of the pod. */
  readonly places: ConnectionPlaces;
  /** The pod for which a process of the host sends requests. */
  readonly podAt: (ip: string) => PodName | undefined;
  readonly isOver: () => boolean;
}

/** One process of the pod at an address. */
export class Traffic {
  readonly #options: TrafficOptions;
  readonly #kept: (Kept | undefined)[] = [];
  readonly #open = new Set<PodConnection>();
  readonly #unfinished = new Set<Promise<void>>();

  constructor(options: TrafficOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { chance, isOver, verdicts } = this.#options;
    while (!isOver()) {
      const manner = chance.name(weights);
      try {
        await this.#manners[manner]();
      } catch (error) {
        // If no process accepts connections because the agent has ended, that is a finding of its
        // own.
        const { code = '' } = error as NodeJS.ErrnoException;
        if (!code.startsWith('ECONN')) throw error;
        verdicts.count(`no connection ${code}`);
      }
      await delay(chance.between(...idleMs));
    }
    for (const connection of this.#open) {
      connection[Symbol.dispose]();
      this.#options.places.giveBack();
    }
    this.#open.clear();
    await Promise.all(this.#unfinished);
  }

  readonly #manners: Readonly<Record<Manner, () => Promise<void>>> = {
    kept: async () => this.#ask(await this.#anyKept(), [this.#anyQuestion()]),
    fresh: () => this.#afresh((kept) => this.#ask(kept, [this.#anyQuestion()])),
    pipeline: async () => this.#ask(await this.#anyKept(), this.#some(2, 7)),
    together: async () => {
      const question = this.#anyQuestion();
      await this.#eachAfresh(Array.from({ length: 12 }, () => question));
    },
    halfClosed: () =>
      this.#afresh(async (kept) => {
        const asked = this.#ask(kept, this.#some(1, 3));
        kept.connection.halfClose();
        await asked;
      }),
    reset: () =>
      this.#afresh(async (kept) => {
        const asked = this.#ask(kept, this.#some(1, 4), 'ended by the client');
        await delay(this.#options.chance.between(0, 150));
        kept.connection.reset();
        await asked;
      }),
    inPieces: () => this.#afresh((kept) => this.#askInPieces(kept)),
    unfinished: async () => {
      const { bytes } = this.#anyQuestion();
      await this.#sendBadly(bytes.slice(0, bytes.length / 2));
    },
    garbage: () => this.#sendBadly(anyGarbage(this.#options.chance)),
    /** More different tokens at once than the limit of waits for one pod. */
    many: () => this.#eachAfresh(this.#some(24, 25)),
  };

  #anyQuestion(): Question {
    const { chance, podAt, ip } = this.#options;
    return anyQuestion(chance, podAt(ip));
  }

  #some(low: number, high: number): readonly Question[] {
    const length = this.#options.chance.between(low, high);
    return Array.from({ length }, () => this.#anyQuestion());
  }

  async #connect(): Promise<Kept> {
    const { port, ip, places } = this.#options;
    await places.take();
    let connection: PodConnection;
    try {
      connection = await PodConnection.open(port, ip);
    } catch (error) {
      places.giveBack();
      throw error;
    }
    this.#open.add(connection);
    return { connection, by: { ip, openedAtMs: connection.openedAtMs, owners: undefined } };
  }

  async #afresh(use: (kept: Kept) => Promise<void>): Promise<void> {
    const kept = await this.#connect();
    try {
      await use(kept);
    } finally {
      this.#close(kept);
    }
  }

  async #eachAfresh(questions: readonly Question[]): Promise<void> {
    await Promise.all(
      questions.map((question) => this.#afresh((kept) => this.#ask(kept, [question]))),
    );
  }

  async #anyKept(): Promise<Kept> {
    const index = this.#options.chance.between(0, keptConnections);
    const kept = this.#kept[index];
    if (kept?.connection.isOpen === true) return kept;
    if (kept !== undefined) this.#close(kept);
    return (this.#kept[index] = await this.#connect());
  }

  /** Sends all questions in one piece, and expects as many answers. */
  async #ask(
    kept: Kept,
    questions: readonly Question[],
    end: 'left open' | 'ended by the client' = 'left open',
  ): Promise<void> {
    const { connection } = kept;
    const asked = questions.map((question, index) =>
      // Requests behind the first may be cut off with it.
      this.#expect(kept, question, index === 0 && end === 'left open'),
    );
    connection.send(questions.map(({ bytes }) => bytes).join(''));
    await Promise.all(asked);
    if (connection.unasked > 0) this.#options.verdicts.find('more answers than requests');
  }

  /** The agent may wait for the rest for seconds; the pod does not. */
  async #sendBadly(bytes: string): Promise<void> {
    if (this.#unfinished.size >= maxUnfinished) return;
    const kept = await this.#connect();
    const { connection } = kept;
    const question = { bytes, token: undefined, isRelayed: false };
    const asked = this.#expect(kept, question, false);
    connection.send(bytes);
    if (this.#options.chance.happens(0.5)) connection.halfClose();
    const ended = asked.finally(() => {
      this.#unfinished.delete(ended);
      this.#close(kept);
    });
    this.#unfinished.add(ended);
  }

  #close({ connection }: Kept): void {
    if (this.#open.delete(connection)) this.#options.places.giveBack();
    connection[Symbol.dispose]();
  }

  async #askInPieces(kept: Kept): Promise<void> {
    const { chance } = this.#options;
    const { connection } = kept;
    const question = this.#anyQuestion();
    const asked = this.#expect(kept, question, true);
    for (let from = 0; from < question.bytes.length && connection.isOpen;) {
      const to = from + chance.between(1, 80);
      connection.send(question.bytes.slice(from, to));
      from = to;
      await delay(chance.between(0, 30));
    }
    await asked;
  }

  async #expect({ connection, by }: Kept, question: Question, isOwed: boolean): Promise<void> {
    const { verdicts } = this.#options;
    verdicts.requests++;
    const sent = { sentAtMs: performance.now(), sentAtWallMs: Date.now() };
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => late.resolve(undefined), longestMs);
    const outcome: Outcome | undefined = await Promise.race([connection.expect(), late.promise]);
    clearTimeout(timer);
    if (outcome === undefined) {
      verdicts.find(
        `neither an answer nor an end in ${longestMs} ms: ${question.bytes.slice(0, 200)}`,
      );
    } else {
      verdicts.check({ question, by, ...sent, isOwed }, outcome);
    }
  }
}
