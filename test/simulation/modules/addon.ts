/** In place of the native module's loader: the functions that pass sockets on. */
import type { FlowEnd, NativeModule, Note } from '../../../src/redirect/native/addon.ts';
import { LocalEnd } from '../local-sockets.ts';
import { currentProcess, TcpListener } from '../machine.ts';
import { failure } from '../open-file.ts';

function listenerAt(descriptor: number): TcpListener {
  const listener = currentProcess().at(descriptor);
  if (!(listener instanceof TcpListener)) throw failure('EPROTOTYPE', 'read listener');
  return listener;
}

function endAt(descriptor: number): LocalEnd {
  const end = currentProcess().at(descriptor);
  if (!(end instanceof LocalEnd)) throw failure('ENOTSOCK', 'use descriptor');
  return end;
}

const simulated = {
  openListener: (ip: string, port: number): number => {
    const owner = currentProcess();
    return owner.open(owner.machine.listen(ip, port));
  },
  listenerAddress: (descriptor: number): FlowEnd => {
    const { ip, port, isListening } = listenerAt(descriptor);
    if (!isListening) throw failure('EPROTOTYPE', 'read listener');
    return { ip, port };
  },
  setListening: (descriptor: number, listens: boolean): void => {
    listenerAt(descriptor).listen(listens);
  },
  duplicate: (descriptor: number): number => {
    const owner = currentProcess();
    return owner.open(owner.at(descriptor));
  },
  connectLocal: (path: string): number => {
    const owner = currentProcess();
    const { listener } = owner.machine.files.look(path, owner);
    if (listener === undefined) throw failure('ECONNREFUSED', 'connect');
    return owner.open(listener.connect());
  },
  sendNote: (socket: number, note: number, descriptor?: number): void => {
    const file = descriptor === undefined ? undefined : currentProcess().at(descriptor);
    endAt(socket).send(note, file);
  },
  receiveNote: (socket: number): Note | undefined => {
    const sent = endAt(socket).receive();
    if (sent === undefined) return undefined;
    const { note, file } = sent;
    if (file === undefined) return { note };
    const descriptor = currentProcess().open(file);
    // The descriptor's own reference replaces that of the note.
    file.unrefer();
    return { note, descriptor };
  },
} satisfies Partial<NativeModule>;

export function nativeModule(): NativeModule {
  return simulated as unknown as NativeModule;
}
