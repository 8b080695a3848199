/** The answers in the agent's debug log, by pod. */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import type { AgentProcess } from '../../../../lab/test-bed/agent-process.ts';

/** By `route reason`. */
export type RequestCounts = Readonly<Record<string, number>>;

/** The agent writes its lines within 5 ms; the rest is for a busy machine. */
const quietMs = 100;

const handledSeries = /^nmi_requests_total\{.*\} (\d+)$/gm;

export class RequestLog {
  readonly #agent: Pick<AgentProcess, 'lines' | 'page'>;
  readonly #counts = new Map<string, Record<string, number>>();
  #linesRead = 0;
  #handled = 0;

  /** For the first run of an agent at debug level. */
  constructor(agent: Pick<AgentProcess, 'lines' | 'page'>) {
    this.#agent = agent;
  }

  /**
   * The log arrives through a pipe. It is complete when it has as many requests as the metrics,
   * which can be seconds old, and no further line arrives for a while.
   * @throws AssertionError when they do not agree within 5 s.
   */
  async count(podIp: string): Promise<RequestCounts> {
    const page = await this.#agent.page('metrics');
    const counts = [...(page?.text ?? '').matchAll(handledSeries)].map(([, count]) => count);
    const total = counts.reduce((sum, count) => sum + Number(count), 0);
    return eventually(async () => {
      this.countSoFar(podIp);
      const handled = this.#handled;
      if (handled < total) throw new Error(`${handled} of ${total} requests logged`);
      await delay(quietMs);
      const soFar = this.countSoFar(podIp);
      if (this.#handled > handled) throw new Error('lines still come');
      return soFar;
    });
  }

  /** Counts only the lines that have arrived so far. */
  countSoFar(podIp: string): RequestCounts {
    const { lines } = this.#agent;
    for (; this.#linesRead < lines.length; this.#linesRead += 1) {
      this.#read(lines[this.#linesRead] ?? '');
    }
    return { ...this.#counts.get(podIp) };
  }

  #read(line: string): void {
    if (!line.includes('"request handled"')) return;
    const { route, reason, podIp } = JSON.parse(line) as Readonly<Record<string, string>>;
    const counts = this.#counts.get(podIp ?? '') ?? {};
    const key = `${route ?? ''} ${reason ?? ''}`;
    counts[key] = (counts[key] ?? 0) + 1;
    this.#counts.set(podIp ?? '', counts);
    this.#handled += 1;
  }
}
