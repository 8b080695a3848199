/** The start error for a port that cannot be bound. */
import { networkCode } from '../../base/network-code.ts';
import { StartError } from '../../base/start-error.ts';

/** @param flags that choose another port or address. */
export function portError(error: unknown, where: string, flags: string): StartError {
  const problems: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another process`,
    EACCES: `no permission to bind ${where}`,
    EADDRNOTAVAIL: `this node does not have the address ${where}`,
  };
  const problem = problems[networkCode(error)] ?? `${where} could not be bound`;
  return new StartError('UNAVAILABLE', problem, `${flags} chooses another`, error);
}
