/** The color of a series, the same in every plot. Pure. */
import { behindRedirect, subjects } from '../core/results.ts';

const blue = '#0b6bcb';
const navy = '#1f2f6b';
const slate = '#5f7282';

const colors: Readonly<Record<string, string>> = {
  [subjects.agent]: blue,
  [subjects.nodeHttp]: '#8c8c8c',
  [subjects.rawTcp]: '#d98324',
  [subjects.goHttp]: '#3a9d5d',
  [subjects.fakeImds]: '#8a4fbf',
  // The agent, by its way in.
  'no redirect': blue,
  iptables: '#d668a8',
  eBPF: navy,
  [behindRedirect('iptables')]: '#b3758f',
  [behindRedirect('eBPF')]: '#7b86b8',
  'programs attached': navy,
  // The agent in peace, beside the agent with more to do.
  'no programs': slate,
  'nothing changes': slate,
  'one pod': slate,
  // Of the agent alone.
  'right answers': blue,
  failures: '#c23b4b',
  'slowest in 250 ms': blue,
  cache: blue,
  resident: '#1f9aa0',
  private: '#96641e',
};

/** Of a program that only the caller of the benchmark knows. */
const unknown = '#222';

export function colorOf(series: string): string {
  return colors[series] ?? unknown;
}
