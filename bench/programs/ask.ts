/**
 * Requests a token until one arrives, and prints the size of the answer's body: `node
 * bench/programs/ask.ts HOST PORT TARGET`.
 */
import { request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const [host = '', port = '80', path = '/'] = process.argv.slice(2);
const deadlineMs = performance.now() + 60_000;

interface Asked {
  readonly status: number;
  readonly text: string;
}

function ask(): Promise<Asked> {
  const { promise, resolve } = Promise.withResolvers<Asked>();
  const headers = { Metadata: 'true' };
  const timeout = 5_000;
  const asking = request({ host, port: Number(port), path, headers, timeout, agent: false });
  asking
    .on('timeout', () => asking.destroy(new Error('no answer in 5 s')))
    .on('error', (error) => {
      resolve({ status: 0, text: error.message });
    })
    .on('response', (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      answer.on('end', () => {
        resolve({ status: answer.statusCode ?? 0, text });
      });
    })
    .end();
  return promise;
}

for (;;) {
  const { status, text } = await ask();
  if (status === 200) {
    process.stdout.write(`${Buffer.byteLength(text)}\n`, () => process.exit(0));
    break;
  }
  if (performance.now() > deadlineMs) throw new Error(`no token: ${status} ${text.slice(0, 300)}`);
  await delay(50);
}
