/**
 * The way straight to the real endpoint that the programs give excepted pods: the program that rules
 * ask about packets, and the sockets it knows.
 *
 * A rule holds the program that was pinned when the rule was made, and its text tells the pin alone.
 * So each program has a pin of its own: another program is another text, and the rule is made anew.
 */
import { join } from 'node:path';
import { listPins } from './pins.ts';
import { readExempt } from './exempt-cgroups.ts';
import { inKernel, type FlowEnd, type NativeModule } from '../native/addon.ts';

export interface StraightWay {
  /** Of the program that tells whether a packet goes straight. */
  readonly pin: string;
  /** The client's ends of connections that do. @throws RedirectError */
  clients(): readonly FlowEnd[];
}

const PIN = /^program_straight_(\d+)$/;

/** The pin's name for a program of this id. */
export function straightPinName(programId: number): string {
  return `program_straight_${programId}`;
}

/** All such pins, the newest program's last. */
export function listStraightPins(pins: readonly string[]): readonly string[] {
  const idOf = (name: string): number => Number(PIN.exec(name)?.[1]);
  return pins.filter((name) => PIN.test(name)).toSorted((a, b) => idOf(a) - idOf(b));
}

/** Undefined while excepted pods are relayed. @throws RedirectError */
export function findStraightWay(pinFolder: string): StraightWay | undefined {
  const name = listStraightPins(listPins(pinFolder)).at(-1);
  if (name === undefined) return undefined;
  return {
    pin: join(pinFolder, name),
    clients: () => inKernel((native) => readClients(native, pinFolder)),
  };
}

/** Records of pods that are no longer excepted lead nowhere, and do not count. */
function readClients(native: NativeModule, pinFolder: string): readonly FlowEnd[] {
  const exempt = readExempt(native, pinFolder);
  const map = native.openMap(join(pinFolder, 'straight'), false);
  try {
    return native.mapKeys(map).flatMap((key) => {
      const record = native.mapGet(map, key);
      if (record === undefined) return [];
      if (exempt.get(viewOf(record).getBigUint64(0, true)) !== 'excepted') return [];
      return [{ ip: key.subarray(0, 4).join('.'), port: viewOf(key).getUint16(4, true) }];
    });
  } finally {
    native.close(map);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
