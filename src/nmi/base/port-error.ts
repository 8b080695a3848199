/** The start error for a port that cannot be bound. */
import { networkCode } from './network-code.ts';
import { StartError } from './start-error.ts';

/** @param flags that choose another port or address. */
export function portError(error: unknown, where: string, flags: string): StartError {
  const known: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another process; ${flags} chooses another`,
    EACCES: `no permission to bind ${where}; ${flags} chooses another`,
    EADDRNOTAVAIL: `this node does not hold the address ${where}; ${flags} chooses another`,
  };
  const text = known[networkCode(error)] ?? `${where} could not be bound`;
  return new StartError('UNAVAILABLE', text, error);
}
