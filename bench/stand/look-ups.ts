/** What it costs to ask the kernel's map who opened a connection. */
import { Callers } from '../../src/redirect/ebpf/callers.ts';
import { DEFAULT_TARGET } from '../../src/redirect/target.ts';

const lookUps = 20_000;
const rounds = 7;

/** @param known a caller that the map has. @throws Error when it has not. */
export function measureLookUps(
  pinFolder: string,
  known: { readonly ip: string; readonly port: number },
): { readonly knownNs: readonly number[]; readonly unknownNs: readonly number[] } {
  const callers = new Callers(pinFolder, DEFAULT_TARGET);
  const here = { localIp: DEFAULT_TARGET.listenIp, localPort: DEFAULT_TARGET.listenPort };
  callers.refresh();
  try {
    const time = (port: number, kind: string): number => {
      const peer = { remoteIp: known.ip, remotePort: port, ...here };
      if (callers.attest(peer).kind !== kind) throw new Error(`the caller is not ${kind}`);
      const startedAtMs = performance.now();
      for (let index = 0; index < lookUps; index++) callers.attest(peer);
      return ((performance.now() - startedAtMs) * 1e6) / lookUps;
    };
    const repeat = (port: number, kind: string): readonly number[] =>
      Array.from({ length: rounds }, () => time(port, kind));
    return { knownNs: repeat(known.port, 'attested'), unknownNs: repeat(1, 'unattested') };
  } finally {
    callers.close();
  }
}
