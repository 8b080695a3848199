/** What the agent's debug log says it answered, by the pod that asked. */
import { eventually } from '../../../lab/world/eventually.ts';
import type { AgentProcess } from '../../../lab/world/agent-process.ts';

/** By `route reason`. */
export type RequestCounts = Readonly<Record<string, number>>;

const handledSeries = /^nmi_requests_total\{.*\} (\d+)$/gm;

export class RequestLog {
  readonly #agent: Pick<AgentProcess, 'lines' | 'page'>;
  readonly #counts = new Map<string, Record<string, number>>();
  #linesRead = 0;
  #handled = 0;

  /** For the first life of an agent at debug level. */
  constructor(agent: Pick<AgentProcess, 'lines' | 'page'>) {
    this.#agent = agent;
  }

  /**
   * The log comes through a pipe, so it is complete once it has as many requests as the metrics.
   * @throws AssertionError when they do not agree within 5 s.
   */
  async count(podIp: string): Promise<RequestCounts> {
    const page = await this.#agent.page('metrics');
    const counts = [...(page?.text ?? '').matchAll(handledSeries)].map(([, count]) => count);
    const total = counts.reduce((sum, count) => sum + Number(count), 0);
    return eventually(() => {
      const soFar = this.countSoFar(podIp);
      if (this.#handled < total) throw new Error(`${this.#handled} of ${total} requests logged`);
      return soFar;
    });
  }

  /** Of what has come through the pipe. */
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
