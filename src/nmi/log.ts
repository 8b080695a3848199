/**
 * What the agent's parts need of a logger. Messages are constant and lower case, everything that
 * varies is a field, and no field ever holds a token, a secret or a full client id.
 */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/**
 * A client id as the replaced system logs it: first and last four characters. Short texts stay,
 * as they did there.
 */
export function redactClientId(clientId: string): string {
  if (clientId.length < 8) return clientId;
  return `${clientId.slice(0, 4)}##### REDACTED #####${clientId.slice(-4)}`;
}
