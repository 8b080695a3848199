/**
 * Fills a small disk with records, makes room and continues. `node full-disk.ts FOLDER` prints the
 * counters and the contents of the files.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { openRecordFile } from '../../../../src/nmi/telemetry/audit/record-file.ts';

const folder = process.argv[2] ?? '';
const ballast = join(folder, 'ballast');
const path = join(folder, 'audit.log');
const perRound = 50;
const counts = { written: 0, dropped: 0 };
const codes = new Set<string>();

writeFileSync(ballast, Buffer.alloc(8_192));
const file = await openRecordFile({
  path,
  clock: systemClock,
  onWritten: (count) => (counts.written += count),
  onDropped: (count, code) => {
    counts.dropped += count;
    codes.add(code);
  },
});
let sent = 0;
for (const round of ['before', 'full', 'after']) {
  if (round === 'after') rmSync(ballast);
  const count = round === 'after' ? 1 : perRound;
  for (let index = 0; index < count; index++) {
    file.write(`${JSON.stringify({ round, index, filling: 'x'.repeat(100) })}\n`);
    sent++;
  }
  if (round === 'full') while (codes.size === 0) await delay(5);
  else while (counts.written + counts.dropped < sent) await delay(5);
}
await file[Symbol.asyncDispose]();

const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
const whole = lines.filter((line) => line.startsWith('{') && line.endsWith('}')).length;
process.stdout.write(
  JSON.stringify({ sent, ...counts, codes: [...codes], whole, broken: lines.length - whole }),
);
