/** Summary of the verifier's log, which explains why the kernel refused a program. */

const STATISTICS = /^(?:processed \d+ insns|verification time|stack depth)/;
const MAX_LINES = 3;
const MAX_LINE = 160;

/**
 * The last relevant lines: the verifier logs every step, then the reason, then statistics. Empty only for
 * an empty log; never throws; linear in the log.
 */
export function summariseVerifierLog(log: string): string {
  const lines = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const telling = lines.filter((line) => !STATISTICS.test(line) && !line.startsWith(';'));
  const chosen = telling.length > 0 ? telling.slice(-MAX_LINES) : lines.slice(-1);
  return chosen
    .map((line) => (line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}...` : line))
    .join(' | ');
}
