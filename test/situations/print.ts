/** Prints what the tellers report about a situation, in the form of its file, for comparison. */
import { stringify } from 'yaml';
import { readSituation } from './situation.ts';
import { inFileForm, wordsOf } from './tellers.ts';

for (const name of process.argv.slice(2)) {
  const words = await wordsOf(readSituation(name));
  const { output } = words;
  process.stdout.write(
    stringify({ ...inFileForm(words), output }, { lineWidth: 0, singleQuote: true }),
  );
}
