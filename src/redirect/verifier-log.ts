/** Summary of the verifier's log, which explains why the kernel refused a program. */

const statistics = /^(?:processed \d+ insns|verification time|stack depth)/;
const maxLines = 3;
const maxLineChars = 160;

/**
 * The last relevant lines: the verifier logs every step, then the reason, then statistics. Empty only for
 * an empty log; never throws; linear in the log.
 */
export function summariseVerifierLog(log: string): string {
  const lines = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const telling = lines.filter((line) => !statistics.test(line) && !line.startsWith(';'));
  const chosen = telling.length > 0 ? telling.slice(-maxLines) : lines.slice(-1);
  return chosen
    .map((line) => (line.length > maxLineChars ? `${line.slice(0, maxLineChars)}...` : line))
    .join(' | ');
}
