import type { Server, Socket } from 'node:net';

type Handle = { readonly fd?: number } | null;

/** The descriptor of a socket or server; undefined once it is closed. This property is not in Node's documentation. */
export function descriptorOf(
  open: (Server | Socket) & { readonly _handle?: Handle },
): number | undefined {
  return open._handle?.fd;
}
